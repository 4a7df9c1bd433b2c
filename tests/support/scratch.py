"""The temporary files of a run, in memory where there is enough: servers and SQLite files that wait
for no disk halve the time of their tests, and a quarter of their processor time.

With TMPDIR in the environment they are there instead, for a disk (`TMPDIR=/var/tmp pytest`) or to
look at the files of a test that failed: the directory in memory is removed when the run ends. Only
the small files of `small_directory_in_memory` are in memory always.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

IN_MEMORY = Path("/dev/shm")
ON_DISK = "/var/tmp"
NEEDED = 6 << 30
"""Bytes that must be free in that directory, and in memory. The whole run takes about a third."""
_REMOVER = 'read -r line; rm -rf "$1"'


def free_memory() -> int:
    """Return the bytes that programs can still use; 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields.get("MemAvailable", "0 kB").split()[0]) * 1024


def fits(directory: Path = IN_MEMORY) -> bool:
    """Return whether the files of a whole run fit into this directory in memory.

    Some of them are programs. Containers often allow none there.
    """
    if not os.access(directory, os.W_OK):
        return False
    volume = os.statvfs(directory)
    if volume.f_flag & os.ST_NOEXEC:
        return False
    return min(volume.f_bavail * volume.f_frsize, free_memory()) >= NEEDED


def directory_on_disk() -> str:
    """Return where temporary files are that a test wants on a disk: in TMPDIR if the user set it."""
    directory = tempfile.gettempdir()
    return ON_DISK if Path(directory).is_relative_to(IN_MEMORY) else directory


@contextlib.contextmanager
def directory_in_memory() -> Iterator[Path | None]:
    """Let this process, and those that it starts, put temporary files into a new directory in
    memory; the value is None if they stay where they are.

    A shell removes the directory, even if this process is killed: it waits for the end of a pipe
    that closes with the process.
    """
    if "TMPDIR" in os.environ or not fits():
        yield None
        return
    directory = tempfile.mkdtemp(prefix="coord-", dir=IN_MEMORY)
    Path(directory).chmod(0o755)  # PostgreSQL runs as another user
    remover = subprocess.Popen(
        ["sh", "-c", _REMOVER, "sh", directory],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    os.environ["TMPDIR"], tempfile.tempdir = directory, None
    try:
        yield Path(directory)
    finally:
        del os.environ["TMPDIR"]
        tempfile.tempdir = None
        remover.communicate()


@contextlib.contextmanager
def small_directory_in_memory() -> Iterator[Path]:
    """Provide a directory for a few megabytes: in memory, if there is any, whatever TMPDIR says."""
    here = Path(tempfile.gettempdir())  # what is in the directory of the run is removed with it
    elsewhere = os.access(IN_MEMORY, os.W_OK) and not here.is_relative_to(IN_MEMORY)
    directory = IN_MEMORY if elsewhere else here
    with tempfile.TemporaryDirectory(prefix="coord-tests-", dir=directory) as path:
        yield Path(path)
