"""The file of a SQLite store: its default path, and how it is created."""

from __future__ import annotations

import os
import threading

from coord.errors import AccessDenied, StoreRefused
from coord.runtime.state_file import state_directory
from coord.stores.sqlite.errors import classify_os
from coord.stores.sqlite.filesystems import MOUNTS, refuse_network, refuse_second_name

_creating = threading.Lock()


def default_path() -> str:
    """Return the path of the user's own file.

    It is in the state directory of the user (`state_directory`).
    """
    return os.path.join(state_directory(), "coord.db")


def prepare(path: str, mounts: str = MOUNTS, *, local: bool = False) -> None:
    """Check that `path` is a local file that this process may write, and create it if necessary.

    Args:
        path: Absolute path of the file. Missing directories are created, too, with the rights that
            the umask leaves.
        mounts: File that lists the mounted file systems.
        local: Whether the user states that the file system is local.

    Raises:
        StoreRefused: The path is a directory, is not on a local file system, or is one of several
            names of the file.
        AccessDenied: This user may not read and write the file.
        StoreUnavailable: The file system has a problem that may pass, such as a full disk.
    """
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, exist_ok=True)
        if not local:
            refuse_network(path, mounts)
        if os.path.isdir(path):
            raise StoreRefused(f"cannot use {path}: it is a directory, not a file")
        create_file(path)
        refuse_second_name(path, mounts)
    except OSError as err:
        raise classify_os(err, path) from None
    if not os.access(path, os.R_OK | os.W_OK):
        # SQLite would open the file for reading, and report the problem only at the first claim.
        raise AccessDenied(f"cannot use {path}: this user may not read and write it")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise AccessDenied(
            f"cannot use {path}: this user may not write in its directory, where SQLite keeps its "
            "log"
        )


def create_file(path: str) -> None:
    """Create an empty file that only its owner can use, unless the file exists.

    The mode is 0o600 because whoever can write the file decides who leads, and even a reader can
    hold its locks. SQLite gives its log the mode of the file. An existing file keeps its mode: to
    share it between users, create it with the right mode beforehand.
    """
    # An existing file is not opened here: closing it would drop every POSIX lock that this process
    # has on it through SQLite (sqlite.org/howtocorrupt.html, 2.2). The lock keeps the SQLite of
    # other threads out until the new file is closed.
    with _creating:
        if os.path.exists(path):
            return
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
        try:
            os.close(os.open(path, flags, 0o600))
        except FileExistsError:
            return
