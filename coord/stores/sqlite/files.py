"""The file of a SQLite store: its default path, how it is created, and which file systems work."""

from __future__ import annotations

import os
import re
import sys
import threading

from coord.errors import AccessDenied, StoreRefused
from coord.stores.sqlite.errors import classify_os

MOUNTS = "/proc/self/mounts"

# SQLite: "WAL does not work over a network filesystem" (sqlite.org/wal.html), because its index is
# shared memory. Besides, another machine has another boot-id clock.
NETWORK = re.compile(
    r"(nfs\d?|cifs|smb\d?|smbfs|ncpfs|afs|coda|ceph|lustre|beegfs|gpfs|gfs2?|ocfs2|glusterfs"
    r"|orangefs|9p|virtiofs|vboxsf|vmhgfs|prl_fs|davfs|fuse\.(sshfs|glusterfs\S*|ceph\S*|s3fs"
    r"|gcsfuse|rclone|davfs\S*|vmhgfs\S*|curlftpfs|smb\S*|cifs\S*|nfs\S*|juicefs|mfs|grpcfuse"
    r"|osxfs|portal))"
)

_creating = threading.Lock()


def default_path() -> str:
    """Return the path of the user's own file.

    It is in $XDG_STATE_HOME or ~/.local/state; on macOS in ~/Library/Application Support; on
    Windows in %LOCALAPPDATA%.
    """
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.join(_home(), "AppData", "Local")
    elif sys.platform == "darwin":
        base = os.path.join(_home(), "Library", "Application Support")
    else:
        # The XDG base directory specification: a path that is not absolute must be ignored.
        state_home = os.environ.get("XDG_STATE_HOME", "")
        base = state_home if os.path.isabs(state_home) else os.path.join(_home(), ".local", "state")
    return os.path.join(base, "coord", "coord.db")


def _home() -> str:
    home = os.path.expanduser("~")
    if home == "~":
        raise RuntimeError("the home directory of this user is not known")
    return home


def prepare(path: str, mounts: str = MOUNTS) -> None:
    """Check that `path` is a local file that this process may write, and create it if necessary.

    Args:
        path: Absolute path of the file. Missing directories are created, too.
        mounts: File that lists the mounted file systems.

    Raises:
        StoreRefused: The path is a directory, or is on a network file system.
        AccessDenied: This user may not read and write the file.
        StoreUnavailable: The file system has a problem that may pass, such as a full disk.
    """
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        refuse_network(path, mounts)
        if os.path.isdir(path):
            raise StoreRefused(f"{path}: is a directory, not a file")
        create_file(path)
    except OSError as err:
        raise classify_os(err, path) from None
    if not os.access(path, os.R_OK | os.W_OK):
        # SQLite would open the file for reading, and report the problem only at the first claim.
        raise AccessDenied(f"{path}: this user may not read and write it")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise AccessDenied(
            f"{path}: this user may not write in its directory, where SQLite keeps its log"
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


def refuse_network(path: str, mounts: str = MOUNTS) -> None:
    """Raise `StoreRefused` for a file on a network file system.

    It reads the list of mounts of Linux. On other systems it accepts every path.
    """
    if (kind := file_system(os.path.realpath(path), mounts)) and NETWORK.fullmatch(kind):
        raise StoreRefused(
            f"{path}: is on a network file system ({kind}); SQLite's log and the lease clock need "
            "one machine. Use a local path, or use RethinkDB for more than one machine"
        )


def file_system(path: str, mounts: str = MOUNTS) -> str:
    """Return the kind of file system that the absolute `path` is on; "" if it is not known.

    The longest mount point that contains the path decides.
    """
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    longest, kind = "", ""
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        # The kernel writes a space in a mount point as \040.
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1])
        inside = point == "/" or path == point or path.startswith(point + "/")
        # ">=", because a later line covers an earlier one at the same mount point.
        if inside and len(point) >= len(longest):
            longest, kind = point, fields[2]
    return kind
