"""Servers whose wall clocks are off, and can be stepped while they run: by shift_clock.c,
preloaded."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).with_name("shift_clock.c")


class ShiftedClock:
    """One server's. `set` steps it at once."""

    def __init__(self, library: Path, file: Path) -> None:
        self._library, self._file = library, file
        self.set(0.0)

    def set(self, seconds: float) -> None:
        with open(self._file, "r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("d", seconds))
        self.seconds = seconds

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "SHIFT_CLOCK": str(self._file)}


def shifted_clocks(directory: Path, count: int) -> list[ShiftedClock]:
    """As many as there are servers; none where the library cannot be built."""
    compiler, library = shutil.which("cc"), directory / "shift_clock.so"
    if compiler is None:
        return []
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE)]
    if subprocess.run(command, capture_output=True, timeout=60).returncode != 0:
        return []
    return [ShiftedClock(library, directory / f"clock-{number}") for number in range(count)]


@contextlib.contextmanager
def environment(more: dict[str, str]) -> Iterator[None]:
    """Processes that are started in here get these variables, too."""
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
