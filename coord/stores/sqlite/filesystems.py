"""Which file systems can hold a SQLite file, and whether a file is mounted by itself.

SQLite's write-ahead log needs shared memory (sqlite.org/wal.html), and the lease clock is that of
one machine. So the file system must be local. A list of the network file systems would never be
complete, because many are made with FUSE under names of their own. Therefore the local ones are
listed.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from coord.errors import StoreRefused

MOUNTS = "/proc/self/mountinfo"
"""Linux: the mounted file systems that this process can see (proc_pid_mountinfo(5))."""

# fmt: off
LOCAL_FILE_SYSTEMS = frozenset((
    "apfs", "aufs", "bcachefs", "btrfs", "devtmpfs", "ecryptfs", "exfat", "ext2", "ext3",
    "ext4", "f2fs", "fuseblk", "hfs", "hfsplus", "jffs2", "jfs", "msdos", "nilfs2", "ntfs",
    "ntfs3", "overlay", "ramfs", "reiser4", "reiserfs", "rootfs", "tmpfs", "ubifs", "udf",
    "ufs", "vfat", "xfs", "zfs",
))
# fmt: on
"""File systems of one machine, by the names that Linux gives them. `fuseblk` is FUSE on a block
device of this machine, such as a disk with NTFS."""


class Mount(NamedTuple):
    """A mounted file system.

    Attributes:
        point: The path that it is mounted at.
        kind: Its type, such as "ext4".
    """

    point: str
    kind: str


def find_mount(path: str, mounts: str = MOUNTS) -> Mount | None:
    """Return the mount that the absolute `path` is on; None if this system lists no mounts.

    The longest mount point that contains the path decides.

    Raises:
        OSError: The list exists and cannot be read now, for example without a file descriptor.
    """
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return None
    mount: Mount | None = None
    for line in lines:
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if not separator or len(fields) < 5:
            continue
        # The kernel writes a space in a mount point as \040.
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        inside = point == "/" or path == point or path.startswith(point + "/")
        # ">=", because a later line covers an earlier one at the same mount point.
        if inside and (mount is None or len(point) >= len(mount.point)):
            mount = Mount(point, after.split(" ")[0])
    return mount


def file_system(path: str, mounts: str = MOUNTS) -> str:
    """Return the type of the file system that the absolute `path` is on; "" if it is not known."""
    mount = find_mount(os.path.realpath(path), mounts)
    return "" if mount is None else mount.kind


def refuse_network(path: str, mounts: str = MOUNTS) -> None:
    """Raise `StoreRefused` unless the file system of `path` is known to be local.

    Where the system lists no mounts (macOS, Windows) it accepts every path.
    """
    if (kind := file_system(path, mounts)) and kind not in LOCAL_FILE_SYSTEMS:
        raise StoreRefused(
            f"cannot use {path}: its file system ({kind}) is not known to be local, and SQLite's "
            "log and the lease clock need one machine. Use a local path, or RethinkDB for several "
            "machines. If the file system belongs to this machine alone, add ?filesystem=local to "
            "the URL"
        )


def refuse_second_name(path: str, mounts: str = MOUNTS) -> None:
    """Raise `StoreRefused` if the file at `path` can have another name, here or elsewhere.

    SQLite keeps its log beside the name that it was opened by. Processes that open one file by two
    names have two logs, and each sees only its own.

    Raises:
        StoreRefused: The file is a mount point, as with `docker -v …/coord.db:…`, or has a second
            hard link.
        OSError: The file or the list of mounts cannot be read.
    """
    real = os.path.realpath(path)
    stat = os.stat(real)
    if stat.st_nlink > 1:
        raise StoreRefused(
            f"cannot use {path}: it has {stat.st_nlink} hard links, and SQLite would keep a log for"
            f" each name. Remove the other names (find them with find -samefile {path})"
        )
    mount = find_mount(real, mounts)
    if mount is None:
        # An overlay may give its files another device number than their directory, but a system
        # with overlays lists its mounts.
        alone = stat.st_dev != os.stat(os.path.dirname(real)).st_dev
    else:
        alone = mount.point == real
    if alone:
        raise StoreRefused(
            f"cannot use {path}: this single file is mounted here, without SQLite's log beside it. "
            "Mount the directory that contains the file instead"
        )
