"""`EtcdStore`: leases in one namespace of an etcd cluster. Each swap is one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Union

from coord.core.history import PastTerm
from coord.core.kept import Kept
from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Override, Release, Renew, Result, Retire
from coord.errors import BadArgument, StoreRefused
from coord.stores import failures
from coord.stores.etcd import era, retirement, rows
from coord.stores.etcd.floors import Floors
from coord.stores.etcd.gateway import Answer as GatewayAnswer
from coord.stores.etcd.gateway import Gateway, decode, encode
from coord.stores.etcd.rows import Keys, Row, Swap
from coord.stores.etcd.url import EtcdURL, parse_url
from coord.stores.failures import RequestError

if TYPE_CHECKING:
    from coord.stores.etcd.announcements import EtcdAnnouncements

Operation = Union[Claim, Override, Renew, Release]

TXN, RANGE, PUT, WATCH = "/v3/kv/txn", "/v3/kv/range", "/v3/kv/put", "/v3/watch"
MAX_NESTED = 120
"""Transactions in one: etcd takes 128 operations, those of the largest nested one included."""
MAX_REQUEST = 700_000
"""Bytes of a request. etcd takes 1.5 MB."""
MAX_KNOWN = 50_000
"""Roles whose last row is remembered. A role that is forgotten costs one more request."""
READ_TIMEOUT = 10.0
"""Seconds that the first rows of a feed may take."""


class EtcdStore:
    """Leases in one namespace of an etcd cluster.

    Implements `coord.stores.protocol.Store`, and `Bulk`, `HasAnnouncements`, `HasKept`,
    `Overridable` and `Retirable`. Connects when it is first used.

    etcd has no clock in transactions, so takeover is by observation only (rule 4, first form), and
    `Lease.remaining` is from the clocks of the clients, for people.

    The store remembers the last row of each role, from its own answers, reads and feeds. A swap is
    then one request: the transaction compares the revision of the key. A refusal is only ever
    answered from a row that the call itself fetched. It remembers the floors of tokens likewise.

    Args:
        url: The members, the user and the namespace.
    """

    def __init__(self, url: EtcdURL | str) -> None:
        self._url = parse_url(url) if isinstance(url, str) else url
        self._keys = Keys(self._url)
        self.gateway = Gateway(self._url)
        self._known: OrderedDict[str, Row] = OrderedDict()
        self._floors = Floors(self._keys.floors)
        self._revision = 0
        self._era: str | None = None
        self._announcements: EtcdAnnouncements | None = None

    def __repr__(self) -> str:
        return f"<EtcdStore {self.url}>"

    @property
    def url(self) -> str:
        """The URL, with `***` for the password."""
        return self._url.redacted

    @property
    def max_clock_skew(self) -> float | None:
        """Seconds that the clocks of all clients may be off; None (the default): never used."""
        return self._url.max_clock_skew

    async def open(self, timeout: float) -> None:
        """Connect, and check that the leases can be read. See `protocol.Store.open`."""
        lease = {"request_range": {"key": encode(self._keys.lease("coord"))}}
        expected_era, request = self._era, {"success": [era.look(self._keys.era), lease]}
        try:
            answer = await self.gateway.call(TXN, request, timeout)
        except RequestError as err:
            raise err.error() from None
        self._learn_era(expected_era, era.read(answer["responses"][0]))

    async def claim(self, claim: Claim, timeout: float) -> Result:
        """Apply one claim. See `protocol.Store.claim`."""
        return await self._swap(claim, timeout)

    async def release(self, release: Release, timeout: float) -> Result:
        """Apply one release. See `protocol.Store.release`."""
        return await self._swap(release, timeout)

    async def override(self, override: Override, timeout: float) -> Result:
        """Apply one override. See `protocol.Overridable.override`."""
        return await self._swap(override, timeout)

    async def retire(self, requests: Sequence[Retire], timeout: float) -> Sequence[bool]:
        """Delete rows that nobody needs. See `protocol.Retirable.retire`."""
        deadline = asyncio.get_running_loop().time() + timeout
        retired: set[str] = set()
        try:
            for part in retirement.parts(requests):
                retired |= await self._retire(part, deadline)
        except RequestError as err:
            raise err.error() from None
        return [request.role in retired for request in requests]

    async def _retire(self, part: Sequence[Retire], deadline: float) -> set[str]:
        loop = asyncio.get_running_loop()
        while True:
            remaining = max(deadline - loop.time(), 0.001)
            looked_up = await self.gateway.call(TXN, retirement.look(self._keys, part), remaining)
            deletion = retirement.deletion(self._keys, part, looked_up)
            if deletion is None:
                return set()
            remaining = max(deadline - loop.time(), 0.001)
            answer = await self.gateway.call(TXN, deletion.request, remaining)
            if answer.get("succeeded"):
                return retirement.deleted(deletion, answer)
            # Somebody else retires roles with the same prefix at this moment, or began an era.

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        """Apply renewals. See `protocol.Store.renew`."""
        return await self._swap_many(renewals, timeout)

    async def swap_all(self, swaps: Sequence[Claim | Release], timeout: float) -> Sequence[Result]:
        """Apply claims and releases. See `protocol.Bulk`."""
        return await self._swap_many(swaps, timeout)

    async def _swap(self, operation: Operation, timeout: float, *, fetched: bool = False) -> Result:
        """Apply one operation; `fetched` says that the known row was just read."""
        try:
            return await self._decide(operation, timeout, fetched=fetched)
        except RequestError as err:
            return err.failure()

    async def _decide(self, operation: Operation, timeout: float, *, fetched: bool) -> Result:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        role = operation.role
        while True:
            if role not in self._known:  # or it was forgotten since it was read, with its era
                fetched = False
            row = self._known.get(role) or rows.absent(role)
            prepared = rows.swap(self._keys, row, operation, self._floors)
            remaining = max(deadline - loop.time(), 0.001)
            if prepared is None:
                if fetched:
                    return Answer(False, row.now())
                await self._fetch(role, remaining)
                fetched = True
                continue
            expected_era, compared = self._era, prepared.request
            request = {
                **compared,
                "compare": [*compared["compare"], era.same(self._keys.era, expected_era)],
                "failure": [*compared["failure"], era.look(self._keys.era)],
            }
            answer, revision = await self._request(TXN, request, remaining)
            if answer.get("succeeded"):
                return self._applied(prepared, revision, expected_era)
            *responses, look = answer["responses"]
            present_era = era.read(look)
            self._learn_era(expected_era, present_era)
            self._learn_from_failure(role, responses, revision, present_era, prepared.before)
            fetched = True
            if loop.time() >= deadline:
                raise RequestError(
                    f"others wrote the row of {role!r} faster than it could be swapped",
                    unknown=False,
                )

    async def _request(
        self, path: str, body: dict[str, Any], timeout: float
    ) -> tuple[GatewayAnswer, int]:
        """Return the answer to a request, and the revision of the whole store."""
        before = self._revision
        answer = await self.gateway.call(path, body, timeout)
        revision = int(answer["header"]["revision"])
        if revision < min(before, self._revision):  # and no other answer has shown that yet
            # A backup was restored. Rows of before would never be replaced by those of now, whose
            # revisions are lower, and floors of before would count as the latest.
            self._forget()
        self._revision = max(self._revision, revision)
        return answer, revision

    def _learn_era(self, expected: str | None, present: str | None) -> None:
        """Forget all rows and floors if a request that expected one era has met another."""
        if present != expected and present != self._era:
            self._forget()
            self._era = present

    def _forget(self) -> None:
        self._known, self._floors = OrderedDict(), Floors(self._keys.floors)
        self._revision = 0

    def _applied(self, prepared: Swap, revision: int, known_era: str | None) -> Answer:
        row = Row(revision, prepared.after, prepared.expires_at)
        self._learn(row, known_era)
        return Answer(True, prepared.after)

    def _learn_from_failure(
        self,
        role: str,
        responses: Sequence[dict[str, Any]],
        revision: int,
        known_era: str | None,
        refuted: Row | None,
    ) -> None:
        """Remember the row, and the floors if the request has read them, too; see `_learn`.

        `refuted` is the row that the request expected. It is not in the store, so the row that is
        replaces it although its revision may be lower, as after a backup was restored.
        """
        pairs, *floors = [rows.pairs(response["response_range"]) for response in responses]
        if refuted is not None and self._known.get(role) is refuted:
            del self._known[role]
        row = rows.decode_row(role, pairs[0]) if pairs else rows.absent(role)
        self._learn(row, known_era)
        if floors and known_era == self._era and revision > self._floors.revision:
            self._floors = Floors.decode(self._keys.floors, floors[0], revision)

    def _learn(self, row: Row, known_era: str | None) -> None:
        """Remember a row, unless a later one is known.

        `known_era` is the era that the store knew when it asked for the row. An answer that comes
        after the store has learned another era tells nothing about the rows of that one.
        """
        if known_era != self._era:
            return
        role = row.lease.role
        self._revision = max(self._revision, row.revision)
        earlier = self._known.get(role)
        # Without a key there is no revision to compare. If that is old news, the next swap fails
        # and reads the row again.
        if earlier is None or row.revision == 0 or row.revision >= earlier.revision:
            self._known[role] = row
            self._known.move_to_end(role)
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)

    async def _fetch(self, role: str, timeout: float) -> None:
        expected, known_era = self._known.get(role), self._era
        key = {"key": encode(self._keys.lease(role))}
        answer, revision = await self._request(RANGE, key, timeout)
        responses = [{"response_range": answer}]
        self._learn_from_failure(role, responses, revision, known_era, expected)

    async def _swap_many(self, operations: Sequence[Operation], timeout: float) -> list[Result]:
        """Apply operations on different roles, many to a request."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        results: dict[str, Result] = {}
        prepared: list[tuple[Operation, Swap]] = []
        alone: list[tuple[Operation, bool]] = []
        known_era = self._era  # now, not when the batches begin: the swaps rest on its rows
        for operation in operations:
            row = self._known.get(operation.role) or rows.absent(operation.role)
            swap = rows.swap(self._keys, row, operation, self._floors)
            if swap is None:  # a refusal needs a row that was fetched
                alone.append((operation, False))
            else:
                prepared.append((operation, swap))
        batches = await asyncio.gather(
            *(self._swap_batch(batch, known_era, timeout) for batch in _batches(prepared))
        )
        for batch in batches:
            for operation, result in batch:
                if result is None:  # the row was another; it is known now
                    alone.append((operation, True))
                else:
                    results[operation.role] = result
        remaining = max(deadline - loop.time(), 0.001)
        for (operation, _), result in zip(
            alone,
            await asyncio.gather(
                *(self._swap(operation, remaining, fetched=fetched) for operation, fetched in alone)
            ),
            strict=True,
        ):
            results[operation.role] = result
        return [results[operation.role] for operation in operations]

    async def _swap_batch(
        self, batch: Sequence[tuple[Operation, Swap]], expected_era: str | None, timeout: float
    ) -> list[tuple[Operation, Result | None]]:
        deadline = asyncio.get_running_loop().time() + timeout
        request = {
            "compare": [era.same(self._keys.era, expected_era)],
            "success": [{"request_txn": swap.request} for _, swap in batch],
            "failure": [era.look(self._keys.era)],
        }
        try:
            answer, revision = await self._request(TXN, request, timeout)
        except RequestError as err:
            return [(operation, err.failure()) for operation, _ in batch]
        if not answer.get("succeeded"):
            self._learn_era(expected_era, era.read(answer["responses"][0]))
            remaining = max(deadline - asyncio.get_running_loop().time(), 0.001)
            swaps = (self._swap(operation, remaining) for operation, _ in batch)
            results = await asyncio.gather(*swaps)
            return [(item[0], result) for item, result in zip(batch, results, strict=True)]
        done: list[tuple[Operation, Result | None]] = []
        for (operation, swap), response in zip(batch, answer["responses"], strict=True):
            nested = response["response_txn"]
            if nested.get("succeeded"):
                done.append((operation, self._applied(swap, revision, expected_era)))
                continue
            try:
                self._learn_from_failure(
                    operation.role, nested["responses"], revision, expected_era, swap.before
                )
            except RequestError as err:
                done.append((operation, err.failure()))
            else:
                done.append((operation, None))
        return done

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        """Return the leases of `roles` (None: of every role). See `protocol.Store.read`."""
        try:
            return [row.now() for row in (await self._read(roles, timeout))[0]]
        except RequestError as err:
            raise err.error() from None

    async def _read(self, roles: Collection[str] | None, timeout: float) -> tuple[list[Row], int]:
        """Return the rows, and the revision of the whole store at which they were read."""
        known_era = self._era
        if roles is None:
            answer = await self.gateway.call(RANGE, rows.all_with(self._keys.leases), timeout)
            pairs, revision = rows.pairs(answer), int(answer["header"]["revision"])
        else:
            pairs, revision = [], 0
            names = sorted(set(roles))
            parts = [names[n : n + MAX_NESTED] for n in range(0, len(names), MAX_NESTED)]
            for part in parts:
                ranges = [
                    {"request_range": {"key": encode(self._keys.lease(role))}} for role in part
                ]
                answer = await self.gateway.call(TXN, {"success": ranges}, timeout)
                # The feed begins at the first part: what changes between the parts comes twice.
                revision = revision or int(answer["header"]["revision"])
                for response in answer["responses"]:
                    pairs = [*pairs, *rows.pairs(response["response_range"])]
        decoded = [
            rows.decode_row(decode(pair["key"]).removeprefix(self._keys.leases), pair)
            for pair in pairs
        ]
        for row in decoded:
            self._learn(row, known_era)
        return decoded, revision

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        """Return the terms in the history of `roles`. See `protocol.Store.past`."""
        try:
            if roles is None:
                body = rows.all_with(self._keys.all_terms())
                answer = await self.gateway.call(RANGE, body, timeout)
                return rows.terms(self._keys, rows.pairs(answer))
            past_terms: list[PastTerm] = []
            for role in sorted(set(roles)):
                body = rows.all_with(self._keys.terms(role))
                answer = await self.gateway.call(RANGE, body, timeout)
                past_terms += rows.terms(self._keys, rows.pairs(answer))
        except RequestError as err:
            raise err.error() from None
        return past_terms

    async def kept(self, role: str, timeout: float) -> Kept:
        """Return the text that `role` keeps. See `protocol.HasKept.kept`."""
        # One transaction, so that the token is that of the same moment.
        ranges = [
            {"request_range": {"key": encode(key)}}
            for key in (self._keys.lease(role), self._keys.kept(role))
        ]
        try:
            answer = await self.gateway.call(TXN, {"success": ranges}, timeout)
            lease, text = (rows.pairs(part["response_range"]) for part in answer["responses"])
            token = rows.decode_row(role, lease[0]).lease.token if lease else 0
        except RequestError as err:
            raise err.error() from None
        return Kept(token, decode(text[0].get("value", "")) if text else "")

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        """Yield the leases of `roles`, and again when one changes. See `protocol.Store.watch`."""
        names = None if roles is None else frozenset(roles)
        try:
            present, revision = await self._read(names, READ_TIMEOUT)
            for row in present:
                yield row.now()
            async with contextlib.aclosing(self._changes(names, revision)) as changes:
                async for row in changes:
                    yield row.now()
        except RequestError as err:
            raise err.error() from None

    async def _changes(
        self, names: frozenset[str] | None, revision: int
    ) -> AsyncGenerator[Row, None]:
        if names is not None and len(names) == 1:
            keys: dict[str, Any] = {"key": encode(self._keys.lease(next(iter(names))))}
        else:
            keys = rows.all_with(self._keys.leases)
        body = {"create_request": {**keys, "start_revision": str(revision + 1)}}
        stream, known_era = self.gateway.stream(WATCH, body), self._era
        async with contextlib.aclosing(stream):
            async for message in stream:
                if message.get("canceled") or "compact_revision" in message:
                    raise failures.lost(self.gateway.server, "the watch was cancelled")
                for event in message.get("events", []):
                    role = decode(event["kv"]["key"]).removeprefix(self._keys.leases)
                    # Somebody deleted the key by hand, and the next read shows it; or the role is
                    # not one of these.
                    if event.get("type") == "DELETE" or (names is not None and role not in names):
                        continue
                    row = rows.decode_row(role, event["kv"])
                    self._learn(row, known_era)
                    yield row

    def announcements(self) -> EtcdAnnouncements:
        """Return the announcements of this store; always the same instance."""
        from coord.stores.etcd.announcements import EtcdAnnouncements  # many use leases only

        if self._announcements is None:
            self._announcements = EtcdAnnouncements(self.gateway, self._url)
        return self._announcements

    def records(self, table: str) -> NoReturn:
        """Raise `BadArgument`: etcd has no clock by which the health of a service is judged."""
        raise BadArgument(
            "store",
            self.url,
            "must be a store with a clock for service records: etcd has none, so nobody can judge "
            "heartbeats there; use a SQLite, RethinkDB, PostgreSQL or Redis URL for the registry",
        )

    async def close(self) -> None:
        """Close all connections."""
        await self.gateway.close()

    def abandon(self) -> None:
        """Forget all connections, in a forked child."""
        self.gateway.abandon()
        self._forget()


def _batches(prepared: Sequence[tuple[Operation, Swap]]) -> list[list[tuple[Operation, Swap]]]:
    """Split prepared swaps into batches that etcd takes."""
    batches: list[list[tuple[Operation, Swap]]] = []
    size = 0
    for item in prepared:
        length = len(str(item[1].request))
        if not batches or len(batches[-1]) == MAX_NESTED or size + length > MAX_REQUEST:
            batches.append([])
            size = 0
        batches[-1].append(item)
        size += length
    return batches


def open_url(url: str) -> EtcdStore:
    """Return the store of `url`. It does not connect.

    Raises:
        BadArgument: The URL is invalid. The message holds no password.
        StoreRefused: The package aiohttp is not installed.
    """
    if importlib.util.find_spec("aiohttp") is None:
        raise StoreRefused("the package aiohttp is not installed; run: pip install 'coord[etcd]'")
    return EtcdStore(parse_url(url))
