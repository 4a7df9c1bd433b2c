"""Small private files in the state directory of the user."""

from __future__ import annotations

import contextlib
import os
import stat
import sys

NAME = "coord"
"""Name of coord's own directory in the state directory."""


def state_directory() -> str:
    """Return coord's own directory for state; it may not exist yet.

    It is in $XDG_STATE_HOME or ~/.local/state; on macOS in ~/Library/Application Support; on
    Windows in %LOCALAPPDATA%.

    Raises:
        RuntimeError: The home directory of this user is not known.
    """
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.join(_home(), "AppData", "Local")
    elif sys.platform == "darwin":
        base = os.path.join(_home(), "Library", "Application Support")
    else:
        # The XDG base directory specification: a path that is not absolute must be ignored.
        state_home = os.environ.get("XDG_STATE_HOME", "")
        base = state_home if os.path.isabs(state_home) else os.path.join(_home(), ".local", "state")
    return os.path.join(base, NAME)


def _home() -> str:
    home = os.path.expanduser("~")
    if home == "~":
        raise RuntimeError("the home directory of this user is not known")
    return home


def read_private(path: str, most: int) -> bytes | None:
    """Return the content of a file that only this user can write; None if it is not such a file.

    Args:
        path: Path of the file.
        most: Maximum size in bytes of a file that is read.

    Raises:
        OSError: The file exists, but cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        fd = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        is_own = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
        others_write = os.name == "posix" and bool(status.st_mode & 0o022)
        if not (stat.S_ISREG(status.st_mode) and is_own) or others_write or status.st_size > most:
            return None
        return file.read(most)


def write_private(path: str, content: bytes) -> None:
    """Replace a file, which only this user can read and write. Readers see all of it or nothing.

    It need not survive a power failure. Missing directories are created for this user only.

    Raises:
        OSError: The file cannot be written.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    new = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)
    try:
        with open(os.open(new, flags, 0o600), "wb") as file:
            file.write(content)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
