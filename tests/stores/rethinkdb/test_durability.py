"""Rules of the RethinkDB store broken on purpose: each shows what the rule is for, and is
caught."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from coord.core.operations import Answer, Claim
from coord.stores.rethinkdb import RethinkDBStore, settings
from coord.stores.rethinkdb.connection import Connection
from coord.stores.rethinkdb.driver import InlineTemplate, JsonTemplate
from coord.stores.rethinkdb.pool import Pool
from tests.stores.rethinkdb.kit import ask, db, opened, r, run
from tests.support.rethinkdb_server import Server

pytestmark = pytest.mark.rethinkdb

ROLES = [f"role {number}" for number in range(800)]
beats = itertools.count(1)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that is set up."""
    from coord.stores.rethinkdb.setup import set_up

    with Server() as started:
        asyncio.run(set_up(started.url()))
        yield started


def tokens_lost(server: Server, answers: int, roles: Sequence[str] = ROLES) -> int:
    """Claim all the roles at once, kill the server when it has answered so many: how many of the tokens
    that it told are gone?"""

    async def claim_until_killed() -> dict[str, int]:
        reports: dict[str, int] = {}

        async def claim(store: RethinkDBStore, role: str) -> None:
            again = Claim(role, "somebody", next(beats), 30.0, takeover=True)
            result = await store.claim(again, 20)
            if isinstance(result, Answer):
                assert result.applied
                reports[role] = result.lease.token
                if len(reports) == answers:
                    server.kill()

        async with opened(server.url()) as store:
            await store.open(20)
            await asyncio.gather(*(claim(store, role) for role in roles))
        return reports

    async def read() -> dict[str, int]:
        async with opened(server.url()) as store:
            return {row.role: row.token for row in await store.read(roles, 20)}

    reports = run(claim_until_killed)
    server.start()
    kept = run(read)
    return sum(kept.get(role, 0) < token for role, token in reports.items())


@pytest.mark.parametrize("answers", [1, len(ROLES) // 4])
def test_hard_durability_keeps_what_was_acknowledged(server: Server, answers: int) -> None:
    assert tokens_lost(server, answers) == 0


def test_soft_durability_loses_tokens(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: a soft table, a store that does not look at its settings, and queries that do not
    ask for better."""
    table = db(server.url()).table("coord_leases")
    (report, _) = ask(
        server.url(),
        table.config().update({"durability": "soft"}),
        table.wait(wait_for="all_replicas_ready"),
    )
    assert report["replaced"] == 1
    monkeypatch.setattr(settings, "weak_settings", lambda config: "")

    def softly(fill: Callable[..., bytes]) -> Callable[..., bytes]:
        return lambda form, parameters: fill(form, parameters).replace(b'"hard"', b'"soft"')

    for kind in (JsonTemplate, InlineTemplate):
        monkeypatch.setattr(kind, "fill", softly(kind.fill))
    # The server writes its cache within milliseconds, so it must be killed at its only answer. Now
    # and then it loses nothing even then.
    assert any(tokens_lost(server, 1, ROLES[:1]) > 0 for _ in range(30))


def answers_after_a_timeout(server: Server) -> list[Any]:
    """Ask for `late`, give it up while the server stands still, ask for `next`: what comes as the
    answer?"""

    async def body() -> list[Any]:
        async with opened(server.url()) as store:
            pool = store.pool
            await store.open(5)
            server.freeze()
            with pytest.raises(Exception, match="did not answer"):
                await pool.run(r.expr("late"), 0.2)
            asyncio.get_running_loop().call_later(0.2, server.thaw)
            return [await pool.run(r.expr("next"), 10)]

    return run(body)


def test_a_connection_is_not_used_after_a_timeout(server: Server) -> None:
    assert answers_after_a_timeout(server) == ["next"]


def test_a_connection_that_is_used_after_a_timeout_gives_wrong_answers(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant: as with the driver, the connection stays in use, and an answer is for the request that
    waits."""
    monkeypatch.setattr(Pool, "_discard", lambda pool, connection: None)
    begin = Connection.__init__

    def one_number(connection: Connection, *args: Any) -> None:
        begin(connection, *args)
        connection._numbers = itertools.repeat(1)  # type: ignore[assignment]

    monkeypatch.setattr(Connection, "__init__", one_number)
    assert answers_after_a_timeout(server) == ["late"]
