"""A ZooKeeper of our own, for handover by kazoo in the same run, where both are installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

JAR = "/usr/share/java/zookeeper.jar"
CLASSES = "/etc/zookeeper/conf:/usr/share/java/*"
UP_WITHIN = 30.0


def available() -> bool:
    return (
        importlib.util.find_spec("kazoo") is not None
        and os.path.exists(JAR)
        and shutil.which("java") is not None
    )


@contextmanager
def zookeeper(enabled: bool) -> Iterator[str | None]:
    """`zookeeper://host:port` of a server that lives as long; None where it is not wanted or not to
    be had."""
    if not enabled or not available():
        yield None
        return
    with tempfile.TemporaryDirectory() as name:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = Path(name) / "zoo.cfg"
        config.write_text(
            f"tickTime=500\nmaxClientCnxns=0\ndataDir={name}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n"
        )
        server = subprocess.Popen(
            [
                "java",
                "-cp",
                CLASSES,
                "org.apache.zookeeper.server.ZooKeeperServerMain",
                str(config),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_until_up(port)
            yield f"zookeeper://127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait()


def _wait_until_up(port: int) -> None:
    until = time.monotonic() + UP_WITHIN
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"ZooKeeper does not listen after {UP_WITHIN:g} s")
