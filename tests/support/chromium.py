"""A real Chromium without a window, driven over pipes by the DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.waits import WITHIN

BINARIES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
TIMEOUT = max(WITHIN, 60.0)
"""Seconds. On a busy machine a browser needs some to start."""
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root runs the tests
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


def binary() -> str | None:
    """Return the browser to start; None if there is none here."""
    return next((path for name in BINARIES if (path := shutil.which(name))), None)


class Browser:
    """One browser. `page(address)` opens a page in it."""

    def __init__(self) -> None:
        program = binary()
        assert program is not None
        self._home = tempfile.mkdtemp(prefix="coord-chromium-")
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The browser takes the numbers 3 and 4; only bash redirects descriptors above 9.
        redirect = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", redirect, "bash", program, *FLAGS, f"--user-data-dir={self._home}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(to_browser, from_browser),
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._events: dict[str, list[dict[str, Any]]] = {}
        self._number = 0
        self._reader = threading.Thread(target=self._pump, daemon=True)
        self._reader.start()

    def _pump(self) -> None:
        buffer = b""
        while data := os.read(self._read, 65_536):
            *messages, buffer = (buffer + data).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers[message["id"]].put(message)
                else:
                    self._events.setdefault(message.get("sessionId", ""), []).append(message)

    def send(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        self._number += 1
        number = self._number
        answer = self._answers[number] = queue.SimpleQueue()
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        reply = answer.get(timeout=TIMEOUT)
        del self._answers[number]
        assert "error" not in reply, (method, reply["error"])
        result: dict[str, Any] = reply["result"]
        return result

    def events(self, session: str) -> list[dict[str, Any]]:
        """What the browser reported of a page."""
        return self._events.setdefault(session, [])

    def close(self) -> None:
        """End the browser and all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._home, ignore_errors=True)

    @contextlib.contextmanager
    def page(self, address: str, *, width: int = 1100, dark: bool = False) -> Iterator[Page]:
        """Open an address in a tab of its own."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.send(f"{domain}.enable")
        page.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=700,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.send("Emulation.setEmulatedMedia", features=[scheme])
        page.send("Emulation.setTimezoneOverride", timezoneId="Europe/Berlin")
        page.go(address)
        try:
            yield page
        finally:
            self.send("Target.closeTarget", targetId=target)


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol for this tab."""
        return self._browser.send(method, self._session, **parameters)

    def go(self, address: str) -> None:
        """Open an address, and wait until it is loaded."""
        self.send("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, script: str) -> Any:
        """Evaluate an expression, and return its value; a promise is awaited."""
        reply = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait until an expression is true."""
        end = time.monotonic() + TIMEOUT
        while True:
            # Between two pages there is no place to evaluate it in.
            with contextlib.suppress(AssertionError):
                if value := self.value(script):
                    return value
            assert time.monotonic() < end, f"{script}: {self.value('document.body.innerText')}"
            time.sleep(0.02)

    @property
    def text(self) -> str:
        """What the page shows."""
        text: str = self.value("document.body.innerText")
        return text

    def press(self, key: str) -> None:
        """Press a key: Tab or Enter."""
        codes = {"Tab": 9, "Enter": 13}
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=codes[key],
                **text,
            )

    def picture(self, file: Path) -> None:
        """Write a picture of the whole page."""
        height = self.value("document.body.offsetHeight")
        width = self.value("document.documentElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        taken = self.send(
            "Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True
        )
        file.write_bytes(base64.b64decode(taken["data"]))

    def problems(self) -> list[str]:
        """What went wrong in the page: exceptions, console errors, refused sources, dialogs."""
        messages = []
        for event in self._browser.events(self._session):
            kind, details = event["method"], event["params"]
            if kind in ("Runtime.exceptionThrown", "Page.javascriptDialogOpening") or (
                kind == "Log.entryAdded" and details["entry"]["level"] == "error"
            ):
                messages.append(f"{kind}: {json.dumps(details)[:400]}")
        return messages

    def hosts(self) -> set[str]:
        """The hosts that the page asked."""
        return {
            event["params"]["request"]["url"].split("/")[2]
            for event in self._browser.events(self._session)
            if event["method"] == "Network.requestWillBeSent"
            and event["params"]["request"]["url"].startswith("http")
        }
