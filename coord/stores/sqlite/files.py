"""The file of a SQLite store: its default path, and how it is created."""

from __future__ import annotations

import os
import threading

from coord.errors import AccessDenied, NotSetUp, StoreRefused
from coord.runtime.state_file import state_directory
from coord.stores.sqlite.errors import classify_os
from coord.stores.sqlite.filesystems import MOUNTS, refuse_network, refuse_second_name

_creating = threading.Lock()


def default_path() -> str:
    """Return the path of the user's own file.

    It is in the state directory of the user (`state_directory`).
    """
    return os.path.join(state_directory(), "coord.db")


def absolute_path(path: str) -> str:
    """Return the absolute path of a file, as people write it.

    POSIX lets a path begin with two slashes, which mean one on the systems that coord runs on.
    """
    absolute = os.path.abspath(path)
    return absolute[1:] if os.name == "posix" and absolute.startswith("//") else absolute


def prepare(path: str, mounts: str = MOUNTS, *, local: bool = False, create: bool = False) -> None:
    """Check that `path` is a local file that this process may write.

    Args:
        path: Absolute path of the file.
        mounts: File that lists the mounted file systems.
        local: Whether the user states that the file system is local.
        create: Whether to create the file if it does not exist, and missing directories with the
            rights that the umask leaves.

    Raises:
        NotSetUp: The file does not exist, and `create` is False.
        StoreRefused: The path is a directory, is not on a local file system, or is one of several
            names of the file.
        AccessDenied: This user may not read and write the file.
        StoreUnavailable: The file system has a problem that may pass, such as a full disk.
    """
    directory = os.path.dirname(path)
    try:
        if create:
            os.makedirs(directory, exist_ok=True)
        elif not exists(path):
            raise NotSetUp(
                f"no such database: {path}. Check the URL. The first candidate or service creates "
                "the file, and so does coord init"
            )
        if not local:
            refuse_network(path, mounts)
        if os.path.isdir(path):
            raise StoreRefused(f"cannot use {path}: it is a directory, not a file")
        if create:
            create_file(path)
        refuse_second_name(path, mounts)
    except OSError as err:
        raise classify_os(err, path) from None
    if not os.access(path, os.R_OK | os.W_OK):
        # SQLite would open the file for reading, and report the problem only at the first claim.
        raise AccessDenied(f"cannot use {path}: this user may not read and write it")
    _check_directory(directory, path)


def check_creatable(path: str, mounts: str = MOUNTS, *, local: bool = False) -> None:
    """Check that this process may create the missing file at `path`, and create nothing.

    Args:
        path: Absolute path of the file.
        mounts: File that lists the mounted file systems.
        local: Whether the user states that the file system is local.

    Raises:
        StoreRefused: The file would not be on a local file system.
        AccessDenied: This user may not create the file or its directory.
        StoreUnavailable: The file system has a problem that may pass.
    """
    directory = os.path.dirname(path)
    try:
        while not exists(directory):
            directory = os.path.dirname(directory)
        if not local:
            refuse_network(path, mounts)
    except OSError as err:
        raise classify_os(err, path) from None
    _check_directory(directory, path)


def exists(path: str) -> bool:
    """Return whether something is at `path`. Raises `OSError` if that cannot be found out."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


def _check_directory(directory: str, path: str) -> None:
    if not os.path.isdir(directory):
        raise AccessDenied(f"cannot use {path}: {directory} is not a directory")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise AccessDenied(
            f"cannot use {path}: this user may not create files in {directory}, and SQLite keeps "
            "its log beside the file"
        )


def create_file(path: str) -> None:
    """Create an empty file that only its owner can use, unless the file exists.

    The mode is 0o600 because every user who can write to the file decides who leads, and even a
    reader can hold its locks. SQLite gives its log the mode of the file. An existing file keeps its
    mode: to share it between users, create it with the right mode beforehand.
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
