"""Which clock this process reads: the name is known only if everything about it is certain."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from coord.runtime import clock, process

BOOT = "1ffa6530-03a8-4a3e-8d80-ed65fa0e4cd8"
PROC = "22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw"
ROOT = "27 1 8:1 / / rw - ext4 /dev/sda1 rw"


def fake_proc(
    path: Path, *, mounts: tuple[str, ...] = (ROOT, PROC), boottime: str = "1000 500000000"
) -> Path:
    (path / "sys/kernel/random").mkdir(parents=True)
    (path / "sys/kernel/random/boot_id").write_text(f"{BOOT}\n")
    (path / "self/ns").mkdir(parents=True)
    for name in ("time", "time_for_children"):
        (path / "self/ns" / name).symlink_to("time:[4026531834]")
    (path / "self/mountinfo").write_text("\n".join(mounts) + "\n")
    (path / "self/timens_offsets").write_text(f"monotonic  -3 0\nboottime  {boottime}\n")
    return path


def test_the_offsets_of_a_time_namespace(tmp_path: Path) -> None:
    reading = clock.read_kernel_clock(str(fake_proc(tmp_path)))
    assert reading == clock.KernelClock(BOOT, "", 1000.5, -3.0)


def test_a_kernel_without_time_namespaces(tmp_path: Path) -> None:
    proc = fake_proc(tmp_path)
    for name in ("self/ns/time", "self/ns/time_for_children", "self/timens_offsets"):
        (proc / name).unlink()
    assert clock.read_kernel_clock(str(proc)) == clock.KernelClock(BOOT)


@pytest.mark.parametrize(
    ("mount", "problem"),
    [
        ("90 22 0:21 /sys /proc/sys ro - proc proc rw", ""),  # Docker makes it read-only
        ("90 22 0:50 / /proc/acpi ro - tmpfs tmpfs ro", ""),
        ("90 22 0:50 /id /proc/sys/kernel/random/boot_id ro - tmpfs tmpfs rw", "tmpfs is mounted"),
        ("90 22 0:50 / /proc/sys/kernel ro - fuse.lxcfs lxcfs rw", "fuse.lxcfs is mounted"),
        (
            "90 22 0:21 /sys/kernel/random/uuid /proc/sys/kernel/random/boot_id ro - proc proc rw",
            "proc is mounted at /proc/sys/kernel/random/boot_id",
        ),
        ("90 22 0:60 / /proc rw - fuse.fake fake rw", "fuse.fake is mounted at /proc"),
    ],
)
def test_what_is_mounted_over_the_boot_id(tmp_path: Path, mount: str, problem: str) -> None:
    reading = clock.read_kernel_clock(str(fake_proc(tmp_path, mounts=(ROOT, PROC, mount))))
    assert problem in reading.problem
    assert (reading.boot_id, bool(reading.problem)) == ("" if problem else BOOT, bool(problem))


def test_without_a_mount_of_proc_nothing_is_known(tmp_path: Path) -> None:
    reading = clock.read_kernel_clock(str(fake_proc(tmp_path, mounts=(ROOT,))))
    assert (reading.boot_id, reading.temporary) == ("", False)


@pytest.mark.parametrize(
    "missing", ["sys/kernel/random/boot_id", "self/mountinfo", "self/timens_offsets"]
)
def test_what_cannot_be_read_is_not_known(tmp_path: Path, missing: str) -> None:
    proc = fake_proc(tmp_path)
    (proc / missing).unlink()
    reading = clock.read_kernel_clock(str(proc))
    assert (reading.boot_id, reading.temporary) == ("", False)
    assert missing in reading.problem


@pytest.mark.parametrize("text", ["", "monotonic 0 0\n", "boottime x y\nmonotonic 0 0\n", "\n"])
def test_offsets_that_are_not_offsets(tmp_path: Path, text: str) -> None:
    proc = fake_proc(tmp_path)
    (proc / "self/timens_offsets").write_text(text)
    assert clock.read_kernel_clock(str(proc)).boot_id == ""


def test_children_in_another_time_namespace(tmp_path: Path) -> None:
    proc = fake_proc(tmp_path)
    (proc / "self/ns/time_for_children").unlink()
    (proc / "self/ns/time_for_children").symlink_to("time:[4026532265]")
    reading = clock.read_kernel_clock(str(proc))
    assert "different time namespaces" in reading.problem


@pytest.mark.parametrize("text", ["", "no/id", "\0"])
def test_a_boot_id_that_is_none(tmp_path: Path, text: str) -> None:
    proc = fake_proc(tmp_path)
    (proc / "sys/kernel/random/boot_id").write_text(text)
    assert clock.read_kernel_clock(str(proc)).boot_id == ""


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_reading", None)
    monkeypatch.setattr(clock, "_machine_clock", None)


@pytest.mark.usefixtures("forgotten")
def test_a_problem_that_may_pass_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more_files(*_args: object, **_named: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", no_more_files)
        first, second = clock.machine_clock(), clock.machine_clock()
    assert (first.known, first.name) == (False, second.name)
    third = clock.machine_clock()
    assert (third.known, third.name) == (True, clock.read_kernel_clock().boot_id)


@pytest.mark.usefixtures("forgotten")
def test_a_problem_that_stays_is_kept_until_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [clock.KernelClock(problem="hidden"), clock.KernelClock(BOOT, "", 1000.0, 0.0)]
    monkeypatch.setattr(clock, "read_kernel_clock", lambda: answers[0])
    first = clock.machine_clock()
    assert not first.known
    assert first.skew == 0.0
    del answers[0]
    assert clock.machine_clock() is first
    monkeypatch.setattr(process, "fork_generation", process.fork_generation + 1)
    second = clock.machine_clock()
    assert second.name == BOOT
    assert -1000.5 < second.total() - clock.total_seconds() <= -1000.0


@pytest.mark.usefixtures("forgotten")
def test_unknown_clocks_of_two_processes_have_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "read_kernel_clock", lambda: clock.KernelClock(problem="hidden"))
    first = clock.machine_clock().name
    monkeypatch.setattr(clock, "_machine_clock", None)
    assert first != clock.machine_clock().name


def test_this_process() -> None:
    reading = clock.kernel_clock()
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        assert reading.boot_id in ("", file.read().strip())
    assert os.path.exists("/proc/self/ns/time") or reading.total_offset == 0
