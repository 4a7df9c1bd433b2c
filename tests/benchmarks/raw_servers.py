"""PostgreSQL, Redis and etcd through their raw drivers: the statements that a store sends, and
nothing else. What stores of coord are measured against."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from coord.core.operations import Claim, Renew

TTL = 600.0
VALUE = "v" * 240
"""About as many bytes as a lease has in etcd."""


class Raw(Protocol):
    """One server through its raw driver."""

    statement: str
    """What it sends, for people."""

    async def open(self) -> None: ...

    async def claim(self, number: int) -> None: ...

    async def renew(self, number: int) -> None: ...

    async def claim_many(self, roles: Sequence[str]) -> None:
        """Take all of them, which are free."""

    async def renew_many(self, roles: Sequence[str], beat: int) -> None: ...

    async def close(self) -> None: ...


def claim_of(role: str, beat: int) -> Claim:
    return Claim(role, "me", beat, TTL, info={"host": "bench", "pid": 1})


class RawPostgreSQL:
    """The functions of the store through asyncpg."""

    statement = "the same statement through asyncpg"

    def __init__(self, url: str) -> None:
        self._dsn, _, options = url.partition("?")
        self._schema = options.partition("schema=")[2].partition("&")[0]

    async def open(self) -> None:
        import asyncpg

        from coord.stores.postgresql import rows, schema

        self._rows, self._calls = rows, schema.calls(self._schema)
        self._driver = await asyncpg.connect(self._dsn)
        self._role = f"raw-{secrets.token_hex(4)}"
        await self.claim(0)

    async def claim(self, number: int) -> None:
        claim = claim_of(self._role, 2 * number + 1)
        (row,) = await self._driver.fetch(self._calls["claim"], *self._rows.claim_parameters(claim))
        assert row["outcome"] == 1
        self._token = row["token"]

    async def renew(self, number: int) -> None:
        renewal = Renew(self._role, "me", self._token, 1_000_000 + number, TTL)
        words = self._rows.renew_parameters([renewal])
        (row,) = await self._driver.fetch(self._calls["renew"], *words)
        assert row["role"] is None

    async def claim_many(self, roles: Sequence[str]) -> None:
        from coord.stores.postgresql.store import MAX_SWAPS

        self._tokens: dict[str, int] = {}
        for begin in range(0, len(roles), MAX_SWAPS):
            claims = [claim_of(role, 1) for role in roles[begin : begin + MAX_SWAPS]]
            columns = self._rows.in_columns([self._rows.claim_parameters(item) for item in claims])
            for row in await self._driver.fetch(self._calls["claim_all"], *columns):
                assert row["outcome"] == 1
                self._tokens[row["role"]] = row["token"]

    async def renew_many(self, roles: Sequence[str], beat: int) -> None:
        from coord.stores.postgresql.store import MAX_RENEWALS

        for begin in range(0, len(roles), MAX_RENEWALS):
            some = roles[begin : begin + MAX_RENEWALS]
            count, tokens = len(some), [self._tokens[role] for role in some]
            columns = (some, ["me"] * count, tokens, [beat] * count, [TTL] * count, [None] * count)
            (row,) = await self._driver.fetch(self._calls["renew"], *columns, None)
            assert row["role"] is None

    async def close(self) -> None:
        await self._driver.close()


class PlainPostgreSQL(RawPostgreSQL):
    """One plain statement for all rows of a table like that of the store: it takes no locks in
    order, so that two of them may wait for each other, and writes no history."""

    async def open(self) -> None:
        await super().open()
        await self._driver.execute(
            f"CREATE TABLE IF NOT EXISTS {self._schema}.raw (role text PRIMARY KEY, holder text, "
            "token bigint, beat bigint, ttl float8, expires_at timestamptz, renewed_at timestamptz,"
            " info text, history text[])"
        )

    async def claim_many(self, roles: Sequence[str]) -> None:
        done = await self._driver.execute(
            f"INSERT INTO {self._schema}.raw SELECT role, 'me', 1, 1, 600, now(), now(), '{{}}', "
            "ARRAY['{}'] FROM unnest($1::text[]) role",
            list(roles),
        )
        assert done == f"INSERT 0 {len(roles)}"

    async def renew_many(self, roles: Sequence[str], beat: int) -> None:
        done = await self._driver.execute(
            f"UPDATE {self._schema}.raw l SET beat = $2, expires_at = now() + interval '600 s', "
            "renewed_at = now() FROM unnest($1::text[]) a (role) "
            "WHERE l.role = a.role AND l.holder = 'me' AND l.token = 1 AND l.beat < $2",
            list(roles),
            beat,
        )
        assert done == f"UPDATE {len(roles)}"


class RawRedis:
    """The scripts of the store through redis-py."""

    statement = "the same script through redis-py"

    def __init__(self, url: str) -> None:
        from coord.stores.redis import parse_url

        self._url = parse_url(url)
        self._address = url.partition("?")[0]

    async def open(self) -> None:
        from redis.asyncio import Redis

        from coord.stores.redis import rows, scripts

        self._rows, self._keys = rows, rows.Keys(self._url)
        self._driver = Redis.from_url(self._address)
        self._claim = await self._driver.script_load(scripts.CLAIM)
        self._renew = await self._driver.script_load(scripts.RENEW)
        await self.claim(0)

    def _claim_words(self, role: str, beat: int) -> tuple[Any, ...]:
        keys, words = self._rows.claim_words(self._keys, claim_of(role, beat))
        return (self._claim, len(keys), *keys, *words)

    def _renew_words(self, renewals: Sequence[Renew]) -> tuple[Any, ...]:
        keys, words = self._rows.renew_words(self._keys, renewals)
        return (self._renew, len(keys), *keys, *words)

    async def claim(self, number: int) -> None:
        reply = await self._driver.evalsha(*self._claim_words("raw", 2 * number + 1))
        assert reply[0] == 1, reply
        self._token = int(reply[3])

    async def renew(self, number: int) -> None:
        renewal = Renew("raw", "me", self._token, 1_000_000 + number, TTL)
        (reply,) = await self._driver.evalsha(*self._renew_words([renewal]))
        assert reply[0] == 1, reply

    async def claim_many(self, roles: Sequence[str]) -> None:
        pipe = self._driver.pipeline(transaction=False)
        for role in roles:
            pipe.evalsha(*self._claim_words(role, 1))
        replies = await pipe.execute()
        assert all(reply[0] == 1 for reply in replies)
        self._tokens = {role: int(reply[3]) for role, reply in zip(roles, replies, strict=True)}

    async def renew_many(self, roles: Sequence[str], beat: int) -> None:
        from coord.stores.redis.store import MAX_RENEWALS

        pipe = self._driver.pipeline(transaction=False)
        for begin in range(0, len(roles), MAX_RENEWALS):
            some = roles[begin : begin + MAX_RENEWALS]
            pipe.evalsha(
                *self._renew_words([Renew(r, "me", self._tokens[r], beat, TTL) for r in some])
            )
        for replies in await pipe.execute():
            assert all(reply[0] == 1 for reply in replies)

    async def close(self) -> None:
        await self._driver.aclose()


class RawEtcd:
    """A compare-and-swap of one key, as JSON, through the client of the store. Many of them are the
    requests that the store sends: a claim of many writes the history, too."""

    statement = "a raw compare-and-swap through the same client"

    def __init__(self, url: str) -> None:
        from coord.stores.etcd.gateway import Gateway
        from coord.stores.etcd.url import parse_url

        self._gateway, self._revision = Gateway(parse_url(url)), 0
        self._prefix = f"raw/{secrets.token_hex(4)}/"
        self._revisions: dict[str, int] = {}

    async def open(self) -> None:
        await self.claim(0)

    async def _call(self, body: dict[str, Any]) -> dict[str, Any]:
        return dict(await self._gateway.call("/v3/kv/txn", body, 60))

    async def claim(self, number: int) -> None:
        """The same for a renewal."""
        answer = await self._call(_swap(f"{self._prefix}one", self._revision))
        assert answer.get("succeeded"), answer
        self._revision = int(answer["header"]["revision"])

    renew = claim

    async def claim_many(self, roles: Sequence[str]) -> None:
        self._revisions = dict.fromkeys(roles, 0)
        await self._swap_many(roles, history=True)

    async def renew_many(self, roles: Sequence[str], beat: int) -> None:
        await self._swap_many(roles, history=False)

    async def _swap_many(self, roles: Sequence[str], *, history: bool) -> None:
        from coord.stores.etcd.store import MAX_NESTED

        async def part(some: Sequence[str]) -> None:
            swaps = [_swap(f"{self._prefix}{role}", self._revisions[role]) for role in some]
            for role, swap in zip(some, swaps, strict=True):
                swap["failure"] = [{"request_range": {"key": swap["compare"][0]["key"]}}]
                if history:
                    swap["success"] += _history(f"{self._prefix}{role}")
            nested = [{"request_txn": swap} for swap in swaps]
            answer = await self._call({"compare": [], "success": nested})
            done = [item["response_txn"].get("succeeded") for item in answer["responses"]]
            assert all(done), answer
            revision = int(answer["header"]["revision"])
            self._revisions.update(dict.fromkeys(some, revision))

        await asyncio.gather(
            *(part(roles[n : n + MAX_NESTED]) for n in range(0, len(roles), MAX_NESTED))
        )

    async def close(self) -> None:
        await self._gateway.close()


class EtcdWire:
    """The same compare-and-swap over a connection of its own, with no library: what the server and
    the kernel take."""

    def __init__(self, host: str, port: int) -> None:
        self._address, self._revision = (host, port), 0
        self._key = f"wire/{secrets.token_hex(4)}"

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(*self._address)

    async def swap(self, number: int) -> None:
        body = json.dumps(_swap(self._key, self._revision)).encode()
        head = f"POST /v3/kv/txn HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        header = await self._reader.readuntil(b"\r\n\r\n")
        length = int(header.lower().partition(b"content-length:")[2].partition(b"\r")[0])
        answer = json.loads(await self._reader.readexactly(length))
        assert answer.get("succeeded"), answer
        self._revision = int(answer["header"]["revision"])

    async def close(self) -> None:
        self._writer.close()


def _swap(key: str, revision: int) -> dict[str, Any]:
    from coord.stores.etcd.gateway import encode

    name = encode(key)
    return {
        "compare": [{"key": name, "target": "MOD", "mod_revision": str(revision)}],
        "success": [{"request_put": {"key": name, "value": encode(VALUE)}}],
    }


def _history(key: str) -> list[dict[str, Any]]:
    """A term is written, and those before the oldest one that is kept are deleted."""
    from coord.stores.etcd.gateway import encode

    term = {"key": encode(f"{key}-term-1"), "value": encode(VALUE[:120])}
    span = {"key": encode(f"{key}-term-"), "range_end": encode(f"{key}-term-0")}
    return [{"request_put": term}, {"request_delete_range": span}]


RAW: dict[str, Callable[[str], Raw]] = {
    "PostgreSQL": RawPostgreSQL,
    "Redis": RawRedis,
    "etcd": RawEtcd,
}
