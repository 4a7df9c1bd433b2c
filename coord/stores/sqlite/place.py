"""Where the file lies: the default path, making it, and whether the file system will do."""

from __future__ import annotations

import os
import re
import sys
import threading

from coord.errors import AccessDenied, StoreRefused
from coord.stores.sqlite.trouble import sort_os

MOUNTS = "/proc/self/mounts"

# SQLite: "WAL does not work over a network filesystem" (sqlite.org/wal.html), for its index is shared memory; and the
# boot-id clock of another machine is another clock.
NETWORK = re.compile(
    r"(nfs\d?|cifs|smb\d?|smbfs|ncpfs|afs|coda|ceph|lustre|beegfs|gpfs|gfs2?|ocfs2|glusterfs|orangefs|9p|virtiofs|vboxsf"
    r"|vmhgfs|prl_fs|davfs|fuse\.(sshfs|glusterfs\S*|ceph\S*|s3fs|gcsfuse|rclone|davfs\S*|vmhgfs\S*|curlftpfs|smb\S*"
    r"|cifs\S*|nfs\S*|juicefs|mfs|grpcfuse|osxfs|portal))"
)

_making = threading.Lock()


def default_path() -> str:
    """The user's own file: in $XDG_STATE_HOME or ~/.local/state; ~/Library/Application Support; %LOCALAPPDATA%."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.join(_home(), "AppData", "Local")
    elif sys.platform == "darwin":
        base = os.path.join(_home(), "Library", "Application Support")
    else:
        # The XDG base directory specification: a path that is not absolute is to be ignored.
        given = os.environ.get("XDG_STATE_HOME", "")
        base = given if os.path.isabs(given) else os.path.join(_home(), ".local", "state")
    return os.path.join(base, "coord", "coord.db")


def _home() -> str:
    home = os.path.expanduser("~")
    if home == "~":
        raise RuntimeError("the home directory of this user is not known")
    return home


def url(path: str) -> str:
    """The URL of an absolute path."""
    from urllib.parse import quote  # not part of importing coord

    return "sqlite://" + quote(path)


def prepare(path: str, mounts: str = MOUNTS) -> None:
    """See that `path` is a local file that we may write; make it and its directories if they are not there.

    Raises `StoreRefused`, `AccessDenied` or `StoreUnavailable`, each naming the path.
    """
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        refuse_network(path, mounts)
        if os.path.isdir(path):
            raise StoreRefused(f"{path}: is a directory, not a file")
        make_file(path)
    except OSError as err:
        raise sort_os(err, path) from None
    if not os.access(path, os.R_OK | os.W_OK):
        # SQLite would open it all the same, for reading, and complain at the first claim.
        raise AccessDenied(f"{path}: this user may not read and write it")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise AccessDenied(f"{path}: this user may not write in its directory, where SQLite keeps its log")


def make_file(path: str) -> None:
    """Make an empty file that is the owner's alone, unless there is one.

    0o600: whoever can write it decides who leads, and even a reader can hold its locks. SQLite gives its log the mode
    of the file. An existing file keeps its mode: who wants to share it between users makes it so beforehand.

    An existing file is not opened here: closing it would drop every POSIX lock that this process has on it through
    SQLite (sqlite.org/howtocorrupt.html, 2.2). The lock keeps other threads' SQLite out until the new one is closed.
    """
    with _making:
        if os.path.exists(path):
            return
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600))
        except FileExistsError:
            return


def refuse_network(path: str, mounts: str = MOUNTS) -> None:
    """Raise `StoreRefused` for a file on a network file system. Looks at Linux's list of mounts; elsewhere trusts."""
    if (kind := file_system(os.path.realpath(path), mounts)) and NETWORK.fullmatch(kind):
        raise StoreRefused(
            f"{path}: lies on a network file system ({kind}); SQLite's log and the lease clock need one machine. "
            "Use a local path, or RethinkDB for more than one machine"
        )


def file_system(path: str, mounts: str = MOUNTS) -> str:
    """The kind of file system that the absolute `path` lies on, by the longest mount point that leads to it, or ""."""
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1])  # \040 is a space
        inside = point == "/" or path == point or path.startswith(point + "/")
        if inside and len(point) >= len(best):  # a later line covers an earlier one at the same point
            best, kind = point, fields[2]
    return kind
