"""Short runs of chaos on each store, and proof that the judge of them sees what it should see."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.crew import ROOT, Crew
from tests.chaos.namespaces import available as namespaces_available
from tests.chaos.run import ENOUGH
from tests.support import requirements
from tests.support import rethinkdb_server as servers
from tests.support.levels import LONGEST, deepest, some
from tests.support.processes import lives

LONG = 600.0 if LONGEST else 0.0
"""Seconds of a long run with all kinds of fault; 0 for the short ones."""
pytestmark = pytest.mark.timeout(180 + 3 * LONG)


TWICE = "stop in act,stop in act"


class Chaos:
    """`python -m tests.chaos`, under way."""

    def __init__(self, directory: Path, name: str, store: str, seconds: float, *more: str) -> None:
        self._out = directory / f"{name}.json"
        self._log = directory / f"{name}.log"
        command = [
            sys.executable,
            "-m",
            "tests.chaos",
            "--store",
            store,
            "--seconds",
            str(seconds),
            "--quiet",
            "0",
            *(() if LONG else ("--longest", "2.5")),
            *more,
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--out", str(self._out)], cwd=ROOT, stdout=log, stderr=log
            )
        self._result: dict[str, Any] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    def result(self) -> dict[str, Any]:
        """Its figures, once it has ended."""
        if self._result is None:
            status = self._process.wait(150 + 3 * LONG)
            assert self._out.exists(), self.log
            self._result = json.loads(self._out.read_text())
            assert status == (0 if self._result["good"] else 1), self.log
        return self._result

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()  # it ends what it started
            self._process.wait(30)


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if not children.exists():
        return []
    pids = [int(word) for word in children.read_text().split()]
    return [*pids, *(item for child in pids for item in descendants(child))]


def kept(chaos: Chaos) -> dict[str, Any]:
    """The figures of a run in which every promise was kept, and which was put to the test."""
    result = chaos.result()
    assert result["good"], chaos.log
    assert result["violations"] == []
    assert result["stale_accepted"] == 0
    assert result["fenced_writes"] > 20
    for action, count in ENOUGH.items():
        assert result["operations"][action]["ok"] >= count
    hit = sum(item["count"] + item["mixed"] for item in result["failover"].values())
    assert result["elections"] >= 1 + hit / 3, chaos.log
    return result


def seen_overlaps(chaos: Chaos) -> None:
    """Where leaders were stopped between check and act, an old leader wrote; at the fenced resource
    it was refused."""
    result = chaos.result()
    assert result["faults"]["stop in act"] >= 1
    assert result["overlaps_unfenced"] > 0, chaos.log
    assert result["stale_refused"] > 0, chaos.log


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three runs at once: they mostly sleep."""
    directory = tmp_path_factory.mktemp("chaos")
    brief = ("--ttl", "1", "--calm", "0.6")
    runs = {
        "sound": Chaos(
            directory,
            "sound",
            "sqlite",
            8,
            *brief,
            "--kinds",
            "stop in act,kill,transfer,file locked,order to step down,stop in act,pause",
        ),
        "fence": Chaos(
            directory,
            "fence",
            "sqlite",
            3,
            *brief,
            "--kinds",
            TWICE,
            "--workers",
            "3",
            "--break",
            "fence",
        ),
        "deadline": Chaos(
            directory,
            "deadline",
            "sqlite",
            3,
            *brief,
            "--kinds",
            TWICE,
            "--workers",
            "3",
            "--break",
            "deadline",
        ),
    }
    yield runs
    for run in runs.values():
        run.end()


def test_sqlite_keeps_every_promise(on_sqlite: dict[str, Chaos]) -> None:
    result = kept(on_sqlite["sound"])
    seen_overlaps(on_sqlite["sound"])
    assert result["faults"]["transfer"] >= 1
    assert result["faults"]["order to step down"] >= 1
    assert result["losses"]["stepped_down"] >= 1, on_sqlite["sound"].log


def test_a_resource_that_fences_nothing_is_caught(on_sqlite: dict[str, Chaos]) -> None:
    result = on_sqlite["fence"].result()
    assert not result["good"]
    assert result["stale_accepted"] > 0, on_sqlite["fence"].log
    assert any(item.startswith("fencing:") for item in result["violations"])
    assert not any(item.startswith("exclusion:") for item in result["violations"])


def test_a_term_that_ignores_its_deadline_is_caught(on_sqlite: dict[str, Chaos]) -> None:
    result = on_sqlite["deadline"].result()
    assert not result["good"]
    assert any(item.startswith("exclusion:") for item in result["violations"]), on_sqlite[
        "deadline"
    ].log
    assert result["stale_accepted"] == 0  # the fence holds all the same
    assert not any(item.startswith("fencing:") for item in result["violations"])


@pytest.fixture(scope="module")
def on_rethinkdb(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two runs at once."""
    if not servers.available():
        requirements.skip("rethinkdb")
    directory = tmp_path_factory.mktemp("chaos")
    kinds = "stop in act,kill,transfer,blackhole,reset,server killed,server stopped,stop in act,clock stepped"
    brief = (
        "--ttl",
        "1",
        "--calm",
        "0.6",
        "--kinds",
        TWICE,
        "--workers",
        "3",
        "--break",
        "fence",
    )
    runs = {
        "sound": Chaos(
            directory, "sound", "rethinkdb", 8, "--ttl", "1.2", "--calm", "0.3", "--kinds", kinds
        ),
        "fence": Chaos(directory, "fence", "rethinkdb", 3, *brief),
    }
    yield runs
    for run in runs.values():
        run.end()


@pytest.mark.rethinkdb
def test_one_rethinkdb_node_keeps_every_promise(on_rethinkdb: dict[str, Chaos]) -> None:
    result = kept(on_rethinkdb["sound"])
    seen_overlaps(on_rethinkdb["sound"])
    assert result["faults"]["transfer"] >= 1
    assert result["document"]["writes"] > 10
    assert result["document"]["stale_refused"] > 0, on_rethinkdb["sound"].log


@pytest.mark.rethinkdb
def test_a_document_that_fences_nothing_is_caught(on_rethinkdb: dict[str, Chaos]) -> None:
    result = on_rethinkdb["fence"].result()
    assert not result["good"]
    assert result["document"]["stale_accepted"] > 0, on_rethinkdb["fence"].log
    assert any(
        item.startswith("fencing:") and "'document'" in item for item in result["violations"]
    )


SERVERS = {
    "postgresql": "stop in act,server killed,kill,stop in act,server stopped,reset",
    "standby": "promotion,stop in act,promotion",
    "redis": "stop in act,server killed,kill,stop in act,server stopped",
    "etcd": "stop in act,primary killed,stop in act,node partitioned,primary stopped",
    "partitions": "stop in act,node partitioned,stop in act,node partitioned",
}
"""The kinds of fault of a short run on each of these stages."""
if LONG:
    SERVERS["sentinel"] = "stop in act,promotion"
BY_DEFAULT = "standby"
"""The stage of a run without COORD_LONG: each crash is a promotion."""
ON_CLUSTER = "primary killed,clock stepped,stop in act,node cut off"


def needs(store: str) -> None:
    """Skip the test if the stage cannot be set up here."""
    tools = {
        "standby": ("postgresql",),
        "partitions": ("rethinkdb",),
        "cluster": ("rethinkdb", "cc"),  # a library shifts the servers' clocks
        "sentinel": ("redis", "redis-sentinel"),
    }
    requirements.need(*tools.get(store, (store,)))
    if store == "partitions" and not namespaces_available():
        requirements.skip("namespaces")


@pytest.fixture(scope="module")
def on_servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Chaos]]:
    """Runs on the stages that this run of the tests asks for, begun together."""
    directory = tmp_path_factory.mktemp("chaos")
    runs: dict[str, Chaos] = {}
    tests = [
        item
        for item in request.session.items
        if isinstance(item, pytest.Function) and "on_servers" in item.fixturenames
    ]
    for store in [test.callspec.params["store"] for test in tests]:
        kinds = SERVERS.get(store, ON_CLUSTER)
        try:
            needs(store)
        except pytest.skip.Exception:
            continue
        brief = ("--ttl", "1.5", "--calm", "0.3", "--kinds", kinds)
        runs[store] = Chaos(directory, store, store, LONG or 8.0, *(() if LONG else brief))
    yield runs
    for run in runs.values():
        run.end()


@deepest
@pytest.mark.cluster
@pytest.mark.parametrize("store", some(SERVERS, lambda store: store == BY_DEFAULT))
def test_servers_keep_every_promise(store: str, on_servers: dict[str, Chaos]) -> None:
    needs(store)
    chaos = on_servers[store]
    result = kept(chaos)
    seen_overlaps(chaos)
    assert result["tokens_twice"] == 0
    for kind in SERVERS[store].split(","):
        if kind != "node partitioned" or namespaces_available():
            assert result["faults"][kind] >= 1, chaos.log
    if store in ("standby", "sentinel"):
        assert result["stage"]["promotions"] >= 1


@deepest
@pytest.mark.cluster
@pytest.mark.parametrize("store", ["cluster"])
def test_three_rethinkdb_nodes_keep_every_promise(store: str, on_servers: dict[str, Chaos]) -> None:
    needs(store)
    chaos = on_servers[store]
    result = kept(chaos)
    seen_overlaps(chaos)
    assert result["faults"]["primary killed"] >= 1
    assert result["faults"]["node cut off"] >= 1
    assert result["stage"]["connections among the nodes, all through proxies"] >= 3
    assert result["document"]["writes"] > 10


def test_a_worker_that_stops_itself_late_ends_in_good_order(tmp_path: Path) -> None:
    """On a busy machine it acts on the order to stop itself in the act when the run has ended."""

    async def body() -> None:
        url = f"sqlite://{tmp_path}/coord.db"
        crew = Crew(tmp_path, 1, 1.0, lambda _: url, url, random.Random(0), "")
        await crew.start()
        try:
            while not crew.elections:  # noqa: ASYNC110  # pytest's timeout ends it
                await asyncio.sleep(0.02)
            stopping = asyncio.create_task(crew.stop())
            await asyncio.sleep(0)
            crew.members[0].send(signal.SIGSTOP)
            await stopping
        finally:
            crew.close()
        assert [note["note"] for note in crew.notes][-1] == "stopped"

    asyncio.run(body())


def test_a_run_that_is_ended_leaves_no_process_behind(tmp_path: Path) -> None:
    chaos = Chaos(
        tmp_path, "ended", "sqlite", 60, "--kinds", "stop", "--calm", "0.1", "--workers", "2"
    )
    until = time.monotonic() + 30
    while len(pids := descendants(chaos.pid)) < 4 and time.monotonic() < until:
        time.sleep(0.02)
    assert len(pids) == 4  # the fork server, the resource and two workers
    chaos.end()
    assert not any(lives(pid) for pid in pids)
