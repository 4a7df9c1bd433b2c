"""Containers: each has files of its own, so each replica may have a SQLite file of its own.

Two replicas with two files elect two leaders. No replica can see the other file, so all that coord
can do is to say that this process runs in a container, and on which volume the file is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from coord.stores.protocol import Finding
from coord.stores.sqlite import filesystems

_MARKS = {".dockerenv": "Docker", "run/.containerenv": "Podman"}
"""Files that a container engine creates, and its name."""
_CGROUPS = {"kubepods": "Kubernetes", "docker": "Docker", "libpod": "Podman", "lxc": "LXC"}
"""What the names of control groups contain. An engine may hide them from the container."""
SHARED_STORE = (
    "run one replica, or set COORD_URL to a store that all replicas reach, such as "
    "postgresql://host/database"
)


def find_engine(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> str:
    """Return the name of what runs this process in a container; "" if nothing shows one.

    Args:
        root: The root directory.
        environ: The environment variables.
    """
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return "Kubernetes"
    for name, engine in _MARKS.items():
        if (root / name).exists():
            return engine
    if named := environ.get("container"):  # systemd-nspawn, LXC and Podman set it
        return named
    try:
        groups = (root / "proc/1/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return next((engine for word, engine in _CGROUPS.items() if word in groups), "")


def check(path: str, engine: str, mounts: str = filesystems.MOUNTS) -> Finding | None:
    """Return what a container means for the file at the absolute `path`; None outside of one.

    Args:
        path: Absolute path of the file.
        engine: The result of `find_engine`.
        mounts: The list of mounts of this process.
    """
    if not engine:
        return None
    mount = filesystems.find_mount(os.path.realpath(path), mounts)
    if mount is None or mount.point == "/":
        detail = (
            f"this process runs in a container ({engine}), and {path} is in the container's own "
            "file system: two replicas have two files, and so two leaders"
        )
    else:
        detail = (
            f"this process runs in a container ({engine}), and {path} is on the volume "
            f"{mount.point}: replicas with different volumes have different leaders"
        )
    return Finding("warn", "container", detail, SHARED_STORE)
