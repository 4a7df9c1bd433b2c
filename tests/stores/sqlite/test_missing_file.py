"""What only reads creates no file: an empty database would look as if nobody led."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

import coord
from coord.core.announcements import Announcement
from coord.core.operations import Answer, Claim, Failure, Release
from coord.errors import AccessDenied, NotSetUp, StoreRefused
from coord.stores import urls
from coord.stores.sqlite import SQLiteStore

RECORD = {"id": "web-1", "role": "web", "load": 0, "ttl": 30.0}
NOTICE = Announcement("key", "r", "candidate", {}, 30.0, False)

LOOK_UPS: dict[str, Callable[[SQLiteStore], Awaitable[Any]]] = {
    "read": lambda store: store.read(None, 5),
    "read roles": lambda store: store.read(["r"], 5),
    "past": lambda store: store.past(None, 5),
    "announcements": lambda store: store.announcements().read(None, 5),
    "withdraw": lambda store: store.announcements().withdraw(["key"], 5),
    "purge announcements": lambda store: store.announcements().purge(5),
    "healthy": lambda store: store.records("services").healthy(None, 5),
    "least loaded": lambda store: store.records("services").least_loaded("web", 5),
    "sample": lambda store: store.records("services").sample("web", 3, 5),
    "list all": lambda store: store.records("services").list_all(None, 5),
    "malformed": lambda store: store.records("services").malformed(5),
    "purge services": lambda store: store.records("services").purge(2, 5),
    "remove": lambda store: store.records("services").remove("web-1", "nonce", 5),
    "withdraw leader": lambda store: store.records("services").withdraw("web", 3, 5),
}
WRITES: dict[str, Callable[[SQLiteStore], Awaitable[Any]]] = {
    "claim": lambda store: store.claim(Claim("r", "a", 1, 30.0), 5),
    "claims": lambda store: store.swap_all([Claim("r", "a", 1, 30.0)], 5),
    "announce": lambda store: store.announcements().post([NOTICE], 5),
    "register": lambda store: store.records("services").register(
        {**RECORD, "first_heartbeat": datetime.now(timezone.utc)}, "nonce", 5
    ),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "coord.db"


def with_store(path: Path, body: Callable[[SQLiteStore], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        store = SQLiteStore(str(path))
        try:
            return await body(store)
        finally:
            await store.close()

    return asyncio.run(main())


@pytest.mark.parametrize("name", LOOK_UPS)
def test_what_reads_or_deletes_says_that_there_is_no_database(name: str, path: Path) -> None:
    with pytest.raises(NotSetUp, match=f"no such database: {path}"):
        with_store(path, LOOK_UPS[name])
    assert not path.parent.exists()
    asyncio.run(urls.open_admin(f"sqlite://{path}").setup({}, 10))
    with_store(path, LOOK_UPS[name])


@pytest.mark.parametrize("name", WRITES)
def test_what_writes_creates_the_database(name: str, path: Path) -> None:
    with_store(path, WRITES[name])
    assert path.exists()


def test_a_release_creates_nothing(path: Path) -> None:
    result = with_store(path, lambda store: store.release(Release("r", "a", 1, 2), 5))
    assert isinstance(result, Failure)
    assert (result.permanent, result.unknown) == (True, False)
    assert not path.parent.exists()


def test_opening_checks_that_the_file_could_be_created(path: Path, tmp_path: Path) -> None:
    with_store(path, lambda store: store.open(5))
    assert not path.parent.exists()
    (tmp_path / "file").touch()
    with pytest.raises(AccessDenied, match="file"):
        with_store(tmp_path / "file" / "coord.db", lambda store: store.open(5))
    mounts = tmp_path / "mounts"
    mounts.write_text(f"1 1 0:5 / {tmp_path} rw - nfs server:/x rw\n")

    async def on_a_network_file_system(_: object) -> None:
        store = SQLiteStore(str(path), mounts=str(mounts))
        await store.open(5)

    with pytest.raises(StoreRefused, match="nfs"):
        with_store(path, on_a_network_file_system)


def test_feeds_wait_for_the_file(path: Path) -> None:
    async def body(store: SQLiteStore) -> None:
        watching, urgent = store.watch(None), store.announcements().watch()
        lease = asyncio.ensure_future(watching.__anext__())
        notice = asyncio.ensure_future(urgent.__anext__())
        await asyncio.sleep(0.2)
        assert not path.parent.exists()
        other = SQLiteStore(str(path))
        assert isinstance(await other.claim(Claim("r", "a", 1, 30.0), 5), Answer)
        await other.announcements().post([Announcement("k", "r", "request", {}, 30.0, True)], 5)
        assert (await asyncio.wait_for(lease, 20)).holder == "a"
        assert (await asyncio.wait_for(notice, 20)).key == "k"
        await watching.aclose()  # type: ignore[attr-defined]
        await urgent.aclose()  # type: ignore[attr-defined]
        await other.close()

    with_store(path, body)


def test_users_are_told_that_there_is_no_database(path: Path) -> None:
    with coord.connect(f"sqlite://{path}") as c:
        for look_up in (
            lambda: c.leader("r"),
            c.leaders,
            c.history,
            c.candidates,
            lambda: next(c.watch_leader("r")),
            lambda: next(c.watch_leaders()),
            lambda: c.unique_service("r"),
            lambda: c.services.healthy_services("web"),
            lambda: c.request_step_down("r"),
        ):
            with pytest.raises(NotSetUp, match="no such database"):
                look_up()
        assert not path.parent.exists()
        assert c.unique_service("r", {"ttl": 5})
        assert c.leader("r") is not None
