"""Where the file lies: the default path, making it, and whether the file system will do."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import sys
import threading
from types import TracebackType
from typing import Protocol

from coord.errors import AccessDenied, StoreRefused
from coord.stores.sqlite import schema
from coord.stores.sqlite.errors import FileReplaced, classify_os

MOUNTS = "/proc/self/mounts"

# SQLite: "WAL does not work over a network filesystem" (sqlite.org/wal.html), for its index is
# shared memory; and the boot-id clock of another machine is another clock.
NETWORK = re.compile(
    r"(nfs\d?|cifs|smb\d?|smbfs|ncpfs|afs|coda|ceph|lustre|beegfs|gpfs|gfs2?|ocfs2|glusterfs|orangefs|9p|virtiofs|vboxsf"
    r"|vmhgfs|prl_fs|davfs|fuse\.(sshfs|glusterfs\S*|ceph\S*|s3fs|gcsfuse|rclone|davfs\S*|vmhgfs\S*|curlftpfs|smb\S*"
    r"|cifs\S*|nfs\S*|juicefs|mfs|grpcfuse|osxfs|portal))"
)

_making = threading.Lock()


def default_path() -> str:
    """The user's own file: in $XDG_STATE_HOME or ~/.local/state; ~/Library/Application Support;
    %LOCALAPPDATA%."""
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
    """See that `path` is a local file that we may write; make it and its directories if they are
    not there.

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
        raise classify_os(err, path) from None
    if not os.access(path, os.R_OK | os.W_OK):
        # SQLite would open it all the same, for reading, and complain at the first claim.
        raise AccessDenied(f"{path}: this user may not read and write it")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise AccessDenied(
            f"{path}: this user may not write in its directory, where SQLite keeps its log"
        )


def make_file(path: str) -> None:
    """Make an empty file that is the owner's alone, unless there is one.

    0o600: whoever can write it decides who leads, and even a reader can hold its locks. SQLite
    gives its log the mode of the file. An existing file keeps its mode: who wants to share it
    between users makes it so beforehand.

    An existing file is not opened here: closing it would drop every POSIX lock that this process
    has on it through SQLite (sqlite.org/howtocorrupt.html, 2.2). The lock keeps other threads'
    SQLite out until the new one is closed."""
    with _making:
        if os.path.exists(path):
            return
        try:
            os.close(
                os.open(
                    path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600
                )
            )
        except FileExistsError:
            return


def refuse_network(path: str, mounts: str = MOUNTS) -> None:
    """Raise `StoreRefused` for a file on a network file system. Looks at Linux's list of mounts;
    elsewhere trusts."""
    if (kind := file_system(os.path.realpath(path), mounts)) and NETWORK.fullmatch(kind):
        raise StoreRefused(
            f"{path}: lies on a network file system ({kind}); SQLite's log and the lease clock need one machine. "
            "Use a local path, or RethinkDB for more than one machine"
        )


def file_system(path: str, mounts: str = MOUNTS) -> str:
    """The kind of file system that the absolute `path` lies on, by the longest mount point that
    leads to it, or ""."""
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
        point = re.sub(
            r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1]
        )  # \040 is a space
        inside = point == "/" or path == point or path.startswith(point + "/")
        if inside and len(point) >= len(
            best
        ):  # a later line covers an earlier one at the same point
            best, kind = point, fields[2]
    return kind


# -- No SQLite across a fork: every connection is closed before, and opened anew after it, in parent
# and child alike. It is not enough for a child to leave its parent's connections alone. SQLite
# notes per process which locks it has on a file (`inodeList` and `unixShmNode` in os_unix.c), and a
# child has a copy of those notes without having the locks. A new connection in the child believes
# them, so it takes no lock of its own: the parent closes, believes itself to be the last, deletes
# the log, and what the child commits is seen by nobody. If the parent was writing at the fork, the
# child finds the file locked for ever. And a thread that was inside SQLite may leave a mutex locked
# in the child. So threads enter SQLite through here; a fork waits until all are outside, and closes
# what is open.
#

PATIENCE = 1.0
"""Seconds that a fork waits for threads inside SQLite, in each of which a disk may be slow."""


class Closable(Protocol):
    """What holds a connection."""

    def drop(self) -> None:
        """Close it, from any thread."""


class _State:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.forking = 0
        self.inside: set[Closable] = set()
        self.open: set[Closable] = set()


_state = _State()
_inherited: list[object] = []
"""Never read: keeps what a child inherited from ever being collected, and so closed."""
_fork_unsafe = False


def enter(one: Closable) -> None:
    """Call before touching SQLite. Waits while a fork is under way. In a child forked unsafely:
    `StoreRefused`."""
    if _fork_unsafe:
        raise StoreRefused(
            "this process was forked while a thread of its parent was inside SQLite, and cannot use SQLite safely: "
            "fork before coord is used, or start a new program"
        )
    with _state.changed:
        while _state.forking:
            _state.changed.wait()
        _state.inside.add(one)


def leave(one: Closable) -> None:
    """Call when done with SQLite for now."""
    with _state.changed:
        _state.inside.discard(one)
        if _state.forking and not _state.inside:
            _state.changed.notify_all()


def opened(one: Closable) -> None:
    _state.open.add(one)


def closed(one: Closable) -> None:
    _state.open.discard(one)


def leak(thing: object) -> None:
    """Never let the garbage collector have it."""
    _inherited.append(thing)


def _before() -> None:
    with _state.changed:
        _state.forking += 1
        _state.changed.wait_for(lambda: not _state.inside, PATIENCE)
        for one in _state.open - _state.inside:
            one.drop()


def _after_in_parent() -> None:
    with _state.changed:
        _state.forking -= 1
        _state.changed.notify_all()


def _after_in_child() -> None:
    global _state, _fork_unsafe
    if _state.open or _state.inside:
        _fork_unsafe = True
        leak(_state)
    _state = _State()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )


# -- One thread's connection to the file, opened when it is wanted and closed when anything is
# doubtful about it.


class Connection:
    """Enter it (`with handle:`) around every use, so that no fork comes in between."""

    def __init__(self, path: str, mounts: str = MOUNTS) -> None:
        self.path, self._mounts = path, mounts
        self.opened = 0
        """How often it was opened: a feed sees by it that its connection is a new one."""
        self._conn: sqlite3.Connection | None = None
        self._syncs = False
        self._file: tuple[int, int] = (0, 0)

    def __enter__(self) -> Connection:
        enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        leave(self)

    def connection(self) -> sqlite3.Connection:
        """The connection. Raises `sqlite3.Error`, and what `place.prepare` and `schema.connect`
        raise."""
        if self._conn is None:
            prepare(self.path, self._mounts)
            before = self._identity()
            self._conn, self._syncs = schema.connect(self.path), True
            self._file = before
            self.opened += 1
            opened(self)
            self.check_place()
        return self._conn

    def begin(self, *, synced: bool) -> sqlite3.Connection:
        """Begin a transaction that writes, and give the connection.

        synced: whether its COMMIT waits until all is on the disk. A claim must: no token may be
        given twice, whatever
            happens. What else is written need only outlive every process, which it does once it is
            in the system's
            hands: who holds a lease goes down with the machine, and after a boot the lease has run
            out. Nor does a busy disk then keep a leader from renewing.
            (sqlite.org/pragma.html#pragma_synchronous: in WAL mode NORMAL may lose the last commits
            with the power, and nothing else; a later commit that is synced keeps them.)
        """
        conn = self.connection()
        if synced is not self._syncs:
            conn.execute("PRAGMA synchronous=FULL" if synced else "PRAGMA synchronous=NORMAL")
            self._syncs = synced
        conn.execute("BEGIN IMMEDIATE")
        return conn

    def check_place(self) -> None:
        """Raise `Moved` if the file was deleted or replaced: others would elect a second leader in
        the new one."""
        if self._identity() != self._file:
            raise FileReplaced(f"{self.path}: was deleted or replaced while it was open")

    def _identity(self) -> tuple[int, int]:
        try:
            stat = os.stat(self.path)
        except FileNotFoundError:
            return (0, -1)
        except OSError as err:
            raise classify_os(err, self.path) from None
        return stat.st_dev, stat.st_ino

    def roll_back(self) -> None:
        """End the transaction, if there is one. If even that fails, close: closing rolls back."""
        if self._conn is not None and self._conn.in_transaction:
            try:
                self._conn.execute("ROLLBACK")
            except sqlite3.Error:
                self.drop()

    def drop(self) -> None:
        """Close. Whoever needs a connection next opens a new one."""
        conn, self._conn = self._conn, None
        closed(self)
        if conn is not None:
            with contextlib.suppress(sqlite3.Error):
                conn.close()
