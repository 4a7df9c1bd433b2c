"""What a run was made on: figures mean little without it."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import statistics
import subprocess
import threading
import time
from pathlib import Path

from tests.benchmarks.setting import Setting


def sync_time(directory: Path, times: int = 100) -> float:
    """Median seconds that the disk takes to append 4 kB and have it safe: what each swap on it
    costs at least."""
    taken, path = [], directory / "sync"
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            began = time.perf_counter()
            file.write(b"\0" * 4096)
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(taken)


def hop_time(times: int = 100) -> float:
    """Median seconds to wake a thread that has slept for 5 ms, and to be woken by it: each answer
    of a store is one."""
    there, back, taken = threading.Lock(), threading.Lock(), []

    def other() -> None:
        for _ in range(times):
            there.acquire()
            back.release()

    there.acquire()
    back.acquire()
    threading.Thread(target=other, daemon=True).start()
    for _ in range(times):
        time.sleep(0.005)
        began = time.perf_counter()
        there.release()
        back.acquire()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


VERSIONS = {
    "PostgreSQL": ("psql", "--version"),
    "Redis": ("redis-server", "--version"),
    "etcd": ("etcd", "--version"),
}


def _output(*command: str) -> str:
    """What a program prints; nothing if it is not here."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def description(where: Setting) -> list[str]:
    """Lines of Markdown."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    stores = f"SQLite {sqlite3.sqlite_version}"
    if where.server is not None:
        output = _output("rethinkdb", "--version")
        stores += f", RethinkDB {re.findall(r'[0-9.]+', output)[0]}"
    for name in where.servers:
        version = re.search(r"\d+(\.\d+)+", _output(*VERSIONS[name]))
        stores += f", {name} {version[0]}" if version else ""
    load = os.getloadavg()[0]
    return [
        f"- machine: {cores} cores, {platform.system()} {platform.machine()}, load {load:.1f} at the start; its disk "
        f"takes {sync_time(where.directory) * 1000:.2f} ms to have 4 kB safe (median of 100 appends with fsync), and "
        f"{hop_time() * 1e6:.0f} µs to wake a thread that slept and to be woken by it",
        f"- Python {platform.python_version()}, {stores}; each server is one node on loopback with the durability "
        "and the caches that it has unless told otherwise, Redis with `appendfsync always`",
    ]
