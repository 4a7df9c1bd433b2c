"""Rules of the RethinkDB store broken on purpose: each shows what the rule is for, and is
caught."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from coord.core.operations import Claim
from coord.stores.rethinkdb.connection import Connection
from coord.stores.rethinkdb.driver import InlineTemplate, JsonTemplate
from coord.stores.rethinkdb.pool import Pool
from tests.stores.rethinkdb.kit import answered, ask, db, opened, r, run
from tests.support.rethinkdb_server import Server

ROLES = [f"role {number}" for number in range(40)]
beats = itertools.count(1)


@pytest.fixture
def server(own_server: Server) -> Server:
    from coord.stores.rethinkdb.setup import set_up

    asyncio.run(set_up(own_server.url()))
    return own_server


def tokens_lost(server: Server) -> int:
    """Claim, be told that it is done, kill the server at once: how many of the tokens are gone?"""

    async def claim_all() -> dict[str, int]:
        told: dict[str, int] = {}
        async with opened(server.url()) as store:
            for _ in range(3):
                claims = [
                    Claim(role, "somebody", next(beats), 30.0, takeover=True) for role in ROLES
                ]
                for result in await asyncio.gather(*(store.claim(claim, 20) for claim in claims)):
                    assert answered(result).applied
                    told[answered(result).lease.role] = answered(result).lease.token
            server.kill()
        return told

    async def read() -> dict[str, int]:
        async with opened(server.url()) as store:
            return {one.role: one.token for one in await store.read(ROLES, 20)}

    told = run(claim_all)
    server.start()
    kept = run(read)
    return sum(kept.get(role, 0) < told[role] for role in ROLES)


def test_hard_durability_keeps_what_was_acknowledged(server: Server) -> None:
    assert tokens_lost(server) == 0


def test_soft_durability_loses_tokens(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: a soft table, and queries that do not ask for better. `open` and `coord doctor`
    refuse that table."""
    table = db(server.url()).table("coord_leases")
    ask(
        server.url(),
        table.config().update({"durability": "soft"}),
        table.wait(wait_for="all_replicas_ready"),
    )

    def softly(fill: Callable[..., bytes]) -> Callable[..., bytes]:
        return lambda form, parameters: fill(form, parameters).replace(b'"hard"', b'"soft"')

    for kind in (JsonTemplate, InlineTemplate):
        monkeypatch.setattr(kind, "fill", softly(kind.fill))
    # Where the disk is quick, what was soft may have got there all the same.
    assert any(tokens_lost(server) > 0 for _ in range(8))


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
    """The mutant: as with the driver, the connection stays in use, and an answer is for whoever
    waits."""
    monkeypatch.setattr(Pool, "_discard", lambda pool, connection: None)
    begin = Connection.__init__

    def one_number(connection: Connection, *args: Any) -> None:
        begin(connection, *args)
        connection._numbers = itertools.repeat(1)  # type: ignore[assignment]

    monkeypatch.setattr(Connection, "__init__", one_number)
    assert answers_after_a_timeout(server) == ["late"]
