"""The built wheel carries the templates and static files, and serves them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from tests.support.processes import ROOT

SERVE = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import coord, httpx
assert coord.__file__.startswith(sys.argv[1]), coord.__file__

async def main():
    async with coord.AsyncCoordinator("memory://") as c:
        transport = httpx.ASGITransport(app=coord.web.create_app(c))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            for path in ("/", "/services", "/static/coord.css", "/static/coord.js", "/favicon.ico"):
                answer = await http.get(path)
                assert answer.status_code == 200, path
                assert len(answer.text) > 100, path

asyncio.run(main())
"""


def test_the_wheel_serves_the_pages(tmp_path: Path) -> None:
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    named = zipfile.ZipFile(built).namelist()
    for directory, ending in (("templates", ".html"), ("static", "")):
        for file in (ROOT / "coord" / "web" / directory).iterdir():
            assert file.name.endswith(ending)
            assert f"coord/web/{directory}/{file.name}" in named
    # Straight from the archive, in a process that does not find the sources.
    subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", SERVE, built],
        check=True,
        timeout=60,
        cwd=tmp_path,
    )
