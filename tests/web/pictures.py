"""Writes docs/pictures/web-*.png from a real Chromium: `python -m tests.web.pictures`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.chromium import Browser
from tests.support.running import running
from tests.web.scene import Scene, command

PICTURES = Path(__file__).parent.parent.parent / "docs" / "pictures"
LIVE = "document.getElementById('live').textContent === 'Live'"
SHOWN = {
    "web-roles": ("", 1100, False),
    "web-role": ("roles/press", 1100, True),
    "web-telephone": ("roles/press", 360, False),
}
"""The pictures: path, width, and whether the browser prefers dark pages."""


def take(browser: Browser, directory: Path) -> None:
    """Write all pictures into a directory."""
    home = Path(tempfile.mkdtemp(prefix="coord-picture-"))
    url = f"sqlite://{home}/coord.db"
    try:
        subprocess.run([sys.executable, "-m", "coord", "init", "--url", url], check=True)
        with running(command("--bind", "127.0.0.1:0"), url) as server:
            scene = Scene(url, server)
            for name, (path, width, dark) in SHOWN.items():
                with browser.page(scene.page + path, width=width, dark=dark) as page:
                    page.until(LIVE)
                    page.picture(directory / f"{name}.png")
            scene.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def main() -> None:
    browser = Browser()
    try:
        take(browser, PICTURES)
    finally:
        browser.close()


if __name__ == "__main__":
    main()
