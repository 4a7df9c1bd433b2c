"""Graceful handover of a peer in the same run: kazoo on ZooKeeper, where both are installed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from coord import clock

JARS = ("/usr/share/java/zookeeper.jar", "/usr/share/zookeeper/lib")


def kazoo_handover(times: int) -> tuple[str, float] | None:
    """Median milliseconds from `lock.release()` in one session to `acquire` in the other; None where not installed."""
    try:
        from kazoo.client import KazooClient
    except ImportError:
        return None
    if not os.path.exists(JARS[0]) or shutil.which("java") is None:
        return None
    import threading

    with tempfile.TemporaryDirectory() as name:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = Path(name) / "zoo.cfg"
        config.write_text(
            f"tickTime=2000\ndataDir={name}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n"
        )
        classpath = "/etc/zookeeper/conf:/usr/share/java/*"
        server = subprocess.Popen(
            ["java", "-cp", classpath, "org.apache.zookeeper.server.ZooKeeperServerMain", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            clients = [KazooClient(f"127.0.0.1:{port}") for _ in range(2)]
            for client in clients:
                client.start(timeout=30)
            locks = [client.Lock("/bench") for client in clients]
            locks[0].acquire()
            holder, taken = 0, []
            for _ in range(times):
                got: list[float] = []

                def wait(other: int = 1 - holder, got: list[float] = got) -> None:
                    locks[other].acquire()
                    got.append(clock.total_seconds())

                thread = threading.Thread(target=wait)
                thread.start()
                time.sleep(0.05)
                began = clock.total_seconds()
                locks[holder].release()
                thread.join()
                taken.append((got[0] - began) * 1000)
                holder = 1 - holder
            for client in clients:
                client.stop()
            return "kazoo on ZooKeeper", statistics.median(taken)
        finally:
            server.send_signal(signal.SIGKILL)
            server.wait()
