"""`coord doctor` says that replicas in containers may have a file, and so a leader, each."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coord.stores.sqlite import containers
from coord.stores.sqlite.admin import SQLiteAdmin
from coord.stores.sqlite.containers import check, find_engine


def test_outside_of_a_container_nothing_is_found(tmp_path: Path) -> None:
    assert find_engine(tmp_path, {"HOME": "/root"}) == ""
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/cgroup").write_text("0::/init.scope\n")
    assert find_engine(tmp_path, {}) == ""
    assert check("/data/coord.db", "") is None


@pytest.mark.parametrize(
    ("file", "text", "engine"),
    [
        (".dockerenv", "", "Docker"),
        ("run/.containerenv", "", "Podman"),
        ("proc/1/cgroup", "0::/kubepods/besteffort/pod1/abc\n", "Kubernetes"),
        ("proc/1/cgroup", "12:cpu:/docker/abc\n", "Docker"),
    ],
)
def test_what_an_engine_leaves_in_the_file_system(
    tmp_path: Path, file: str, text: str, engine: str
) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    assert find_engine(tmp_path, {}) == engine


def test_what_an_engine_leaves_in_the_environment(tmp_path: Path) -> None:
    assert find_engine(tmp_path, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == "Kubernetes"
    assert find_engine(tmp_path, {"container": "systemd-nspawn"}) == "systemd-nspawn"


def test_the_finding_tells_a_volume_from_the_containers_own_files(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 0:50 / / rw - overlay overlay rw\n2 1 8:1 /data /data rw - ext4 /dev/sda1 rw\n"
    )
    own = check("/srv/coord.db", "Docker", str(mounts))
    volume = check("/data/coord.db", "Docker", str(mounts))
    assert own is not None
    assert volume is not None
    assert own.level == volume.level == "warn"
    assert "two replicas have two files, and so two leaders" in own.detail
    assert "is on the volume /data: replicas with different volumes" in volume.detail
    assert "postgresql://host/database" in own.advice


def test_the_doctor_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = SQLiteAdmin(str(tmp_path / "coord.db"))
    for engine in ("", "Kubernetes"):
        monkeypatch.setattr(containers, "find_engine", lambda engine=engine: engine)
        findings = {finding.what: finding for finding in asyncio.run(admin.check(10))}
        assert ("container" in findings) == bool(engine)
    assert "(Kubernetes)" in findings["container"].detail
