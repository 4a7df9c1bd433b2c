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
    """The functions of the store through asyncpg; many rows in one statement on a table like it."""

    statement = "the same statement through asyncpg"

    def __init__(self, url: str) -> None:
        self._dsn, _, options = url.partition("?")
        self._schema = options.partition("schema=")[2].partition("&")[0]

    async def open(self) -> None:
        import asyncpg

        from coord.stores.postgresql import rows, schema

        self._rows, self._calls = rows, schema.calls(self._schema)
        self._driver = await asyncpg.connect(self._dsn)
        await self._driver.execute(
            f"CREATE TABLE IF NOT EXISTS {self._schema}.raw (role text PRIMARY KEY, holder text, "
            "token bigint, beat bigint, ttl float8, expires_at timestamptz, renewed_at timestamptz,"
            " info text, history text[])"
        )
        await self.claim(0)

    async def claim(self, number: int) -> None:
        claim = claim_of("raw", 2 * number + 1)
        (row,) = await self._driver.fetch(self._calls["claim"], *self._rows.claim_parameters(claim))
        assert row["outcome"] == 1
        self._token = row["token"]

    async def renew(self, number: int) -> None:
        renewal = Renew("raw", "me", self._token, 1_000_000 + number, TTL)
        words = self._rows.renew_parameters([renewal], answer_all=False)
        assert await self._driver.fetch(self._calls["renew"], *words) == []

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

    async def close(self) -> None:
        await self._driver.close()


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
    """A compare-and-swap of one key, as JSON, through the client of the store."""

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
        await self.renew_many(roles, 1)

    async def renew_many(self, roles: Sequence[str], beat: int) -> None:
        from coord.stores.etcd.store import MAX_NESTED

        async def part(some: Sequence[str]) -> None:
            nested = [
                {"request_txn": _swap(f"{self._prefix}{role}", self._revisions[role])}
                for role in some
            ]
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


RAW: dict[str, Callable[[str], Raw]] = {
    "PostgreSQL": RawPostgreSQL,
    "Redis": RawRedis,
    "etcd": RawEtcd,
}
