"""The first request of a process imports the driver of its store, which takes seconds on a busy
machine. No server is late because of that."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.store_urls import new_etcd_namespace, new_redis_namespace, new_schema

STORES: dict[str, tuple[pytest.MarkDecorator, str, Callable[..., str]]] = {
    "aiohttp": (pytest.mark.server, "etcd_member", new_etcd_namespace),
    "asyncpg": (pytest.mark.server, "postgresql_server", new_schema),
    "redis": (pytest.mark.server, "redis_server", new_redis_namespace),
    "rethinkdb": (pytest.mark.rethinkdb, "rethinkdb_module_url", str),
}
"""By its driver, each store on servers: a fixture, and what makes a URL of its value."""
PROGRAM = """\
import asyncio, sys
from coord import AsyncCoordinator

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[2]:
            late.add(name)

async def main():
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + 3600.0 * len(late)
    async with AsyncCoordinator(sys.argv[1], timeout=60) as coordinator:
        print(await coordinator.leaders(), len(late) > 0)

late = set()
sys.meta_path.insert(0, Finder())
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "driver", [pytest.param(name, marks=mark) for name, (mark, _, _) in STORES.items()]
)
def test_no_server_is_late_because_its_driver_is_imported(
    driver: str, request: pytest.FixtureRequest
) -> None:
    _, fixture, new_url = STORES[driver]
    url = new_url(request.getfixturevalue(fixture))
    command = [sys.executable, "-c", PROGRAM, url, driver]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("[] True\n", "")
