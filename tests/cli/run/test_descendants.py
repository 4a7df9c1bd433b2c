"""Which processes are found, by each way to ask the kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from coord.cli.run import descendants
from tests.support.processes import lives
from tests.support.waits import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
TREE = "sh -c 'sleep 60 & setsid sleep 60 & wait' & wait"


@pytest.fixture
def root() -> Iterator[subprocess.Popen[bytes]]:
    """A shell with a shell with two children."""
    process = subprocess.Popen(["sh", "-c", TREE], start_new_session=True)
    yield process
    descendants.end_all(process.pid, process.pid, within=30)
    process.kill()
    process.wait()


@pytest.fixture(params=["children", "stat"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of /proc that name the children, or kernels without them."""
    if request.param == "stat":
        exists = os.path.exists
        monkeypatch.setattr(
            os.path, "exists", lambda path: "children" not in str(path) and exists(path)
        )


@pytest.mark.usefixtures("way")
def test_living_and_signalled(root: subprocess.Popen[bytes]) -> None:
    def names() -> list[str]:
        return sorted(process.name for process in descendants.living(root.pid, None))

    eventually(lambda: names() == ["sh", "sleep", "sleep"])
    (inner,) = descendants.children(root.pid)
    assert descendants.living(root.pid, None, spared=[inner]) == []
    first, second = descendants.children(inner)
    os.kill(first, signal.SIGSTOP)
    descendants.signal_all(root.pid, None, signal.SIGKILL, spared=[inner])
    assert lives(first)
    assert descendants.end_all(inner, None, within=30) == []
    assert not lives(first)
    assert not lives(second)


def test_a_zombie_does_not_live() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    eventually(lambda: pid in descendants.children(os.getpid()))
    eventually(lambda: not lives(pid))
    assert pid not in [process.pid for process in descendants.living(os.getpid(), None)]
    os.waitpid(pid, 0)
    assert pid not in descendants.children(os.getpid())


def test_a_process_that_is_gone_has_no_children() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert descendants.children(process.pid) == []


def test_without_proc_the_group_is_known(
    root: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert descendants.living(1, root.pid) == [descendants.Process(root.pid, "")]
    assert descendants.living(1, None) == []
    descendants.signal_all(1, root.pid, signal.SIGKILL)
    root.wait()
    eventually(lambda: descendants.living(1, root.pid) == [])
