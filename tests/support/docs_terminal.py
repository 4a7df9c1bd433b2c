"""A terminal for real commands: what they print there, and a picture of it."""

from __future__ import annotations

import fcntl
import html
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

WIDTH = 240
"""Columns of the pty: no table is folded, whatever the machine is called."""
NARROWEST = 80
ID = "xterm7"
"""Begins the names in a picture; not to be mistaken for anything that a command prints."""
# Rich's own format fetches a font from elsewhere; every viewer of the picture has a monospaced
# one.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "Fira Code,", ""
)
FORMAT = re.sub(r"font-family: Fira Code", "font-family: monospace", FORMAT)


TOOLS = ".tools"
"""The directory in the home, whose programs come before all others."""


class Terminal:
    """Commands typed one after another into one terminal, each run by bash in a pty of its own.

    `variables` are added to the environment.
    """

    def __init__(self, home: Path, title: str, **variables: str) -> None:
        self._variables = variables
        self.title, self._home, self._said = title, home, ""
        self._running: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None

    def type(self, command: str) -> Terminal:
        """Begin a command."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, WIDTH, 0, 0))
        state = {
            "HOME": str(self._home),
            "XDG_STATE_HOME": str(self._home / ".local/state"),
            "COORD_URL": "",
        }
        tools = (str(self._home / TOOLS), str(Path(sys.executable).parent))
        path = os.pathsep.join([*tools, os.environ["PATH"]])
        environment = {
            **os.environ,
            **state,
            "PATH": path,
            "TERM": "xterm-256color",
            "PYTHONWARNINGS": "error",
            **self._variables,
        }
        environment.pop("COLUMNS", None)
        with self._lock:
            self._said += f"\x1b[1;32m$\x1b[0m {command}\n"
        self._running = subprocess.Popen(
            ["bash", "-c", command], stdin=slave, stdout=slave, stderr=slave, env=environment,
            cwd=self._home, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self._reader = threading.Thread(target=self._read, args=(master,), daemon=True)
        self._reader.start()
        return self

    def run(self, command: str) -> Terminal:
        """A command to its end."""
        self.type(command)
        assert self._running is not None
        self._running.wait(30)
        return self._ended()

    def until(self, text: str, seconds: float = 30.0) -> Terminal:
        """Wait for what the running command prints."""
        end = time.monotonic() + seconds
        while text not in self.text:
            assert time.monotonic() < end, f"no {text!r} in {self.text!r}"
            time.sleep(0.02)
        return self

    def note(self, text: str) -> Terminal:
        """What a reader would not see otherwise."""
        with self._lock:
            self._said += f"\x1b[3m{text}\x1b[0m\n"
        return self

    def signal(self, number: int) -> Terminal:
        """Send a signal to the running command, and wait for its end."""
        assert self._running is not None
        self._running.send_signal(number)
        self._running.wait(30)
        return self._ended()

    def close(self) -> None:
        """End what runs."""
        if self._running is not None and self._running.poll() is None:
            self.signal(signal.SIGTERM)

    def _ended(self) -> Terminal:
        assert self._reader is not None
        self._reader.join(10)
        return self

    def _read(self, master: int) -> None:
        try:
            while data := os.read(master, 65536):
                with self._lock:
                    self._said += data.decode(errors="replace").replace("\r\n", "\n")
        except OSError:  # how a pty ends
            pass
        finally:
            os.close(master)

    @property
    def ansi(self) -> str:
        with self._lock:
            return self._said.replace(str(self._home), "/home/you")

    @property
    def text(self) -> str:
        return Text.from_ansi(self.ansi).plain

    def picture(self) -> str:
        """As SVG."""
        lines = Text.from_ansi(self.ansi.rstrip("\n"))
        width = max(NARROWEST, *(len(line) for line in lines.plain.splitlines()))
        console = Console(record=True, width=width, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
        with console.file:
            console.print(lines, soft_wrap=False)
            return console.export_svg(
                title=self.title, theme=MONOKAI, code_format=FORMAT, unique_id=ID
            )


def words(svg: str) -> list[str]:
    """What a picture shows, line by line."""
    rows: dict[tuple[int, float], list[tuple[float, str]]] = {}
    for number, part in enumerate(re.split(r"<svg\b", svg)):
        for attributes, text in re.findall(r"<text ([^>]*)>(.*?)</text>", part):
            place = dict(re.findall(r'\b(x|y)="([\d.]+)"', attributes))
            rows.setdefault((number, float(place["y"])), []).append(
                (float(place["x"]), html.unescape(text))
            )
    lines = [
        "".join(text for _, text in sorted(row)).replace("\xa0", " ").rstrip()
        for _, row in sorted(rows.items())
    ]
    return [line for line in lines if line]
