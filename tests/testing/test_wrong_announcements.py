"""Announcements and service records that are wrong on purpose must fail the contract, each in the
test that is named here. Wrong stores of leases are in `test_wrong_stores.py`."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from coord.core import records
from coord.core.announcements import Announcement
from coord.core.records import Record, RecordWithRemaining
from coord.stores.memory import MemoryStore
from coord.stores.memory.announcements import MemoryAnnouncements
from coord.stores.memory.records import MemoryRecords
from coord.stores.protocol import Store
from coord.testing import StoreContract
from coord.testing.contract import announcements as announcement_contract
from coord.testing.contract import records as record_contract


class WithAnnouncements(MemoryStore):
    """A store in memory with announcements of this kind."""

    def __init__(self, kind: type[MemoryAnnouncements]) -> None:
        super().__init__()
        self._posted = kind()

    def announcements(self) -> MemoryAnnouncements:
        return self._posted


class WithRecords(MemoryStore):
    """A store in memory with service records of this kind."""

    def __init__(self, kind: type[MemoryRecords]) -> None:
        super().__init__()
        self._registered = kind()

    def records(self, table: str) -> MemoryRecords:
        return self._registered


class OfOneStore(StoreContract):
    """The contract of one store in memory, which all users of the test share."""

    def __init__(self, store: Store | None = None) -> None:
        if store is not None:
            self._store = store

    def make_store(self) -> Store:
        return self._store


class EachStoreHasItsOwn(MemoryStore):
    """What one store announces, no other reads."""

    def announcements(self) -> MemoryAnnouncements:
        return MemoryAnnouncements()


class LosesTheBody(MemoryAnnouncements):
    async def post(self, notices: Sequence[Announcement], timeout: float) -> dict[str, int]:
        return await super().post([replace(notice, body={}) for notice in notices], timeout)


class KnowsNoTime(MemoryAnnouncements):
    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Announcement]:
        return [replace(notice, remaining=0.0) for notice in await super().read(roles, timeout)]


class ReadsEveryRole(MemoryAnnouncements):
    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Announcement]:
        return await super().read(None, timeout)


class KeepsReplaced(MemoryAnnouncements):
    """The key is that of the announcement and its role."""

    async def post(self, notices: Sequence[Announcement], timeout: float) -> dict[str, int]:
        return await super().post(
            [replace(notice, key=f"{notice.key}{notice.role}") for notice in notices], timeout
        )

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Announcement]:
        return [
            replace(notice, key=notice.key.removesuffix(notice.role))
            for notice in await super().read(roles, timeout)
        ]


class WithdrawsNothing(MemoryAnnouncements):
    async def withdraw(self, keys: Collection[str], timeout: float) -> None:
        return None


class WithdrawsTheFirst(MemoryAnnouncements):
    async def withdraw(self, keys: Collection[str], timeout: float) -> None:
        await super().withdraw(sorted(keys)[:1], timeout)


class NeverExpires(MemoryAnnouncements):
    def _unexpired(self) -> list[Announcement]:
        return [notice for notice, _ in self._rows.values()]


class PurgesEverything(MemoryAnnouncements):
    async def purge(self, timeout: float) -> int:
        count, self._rows = len(self._rows), {}
        return count


class CountsRequests(MemoryAnnouncements):
    async def post(self, notices: Sequence[Announcement], timeout: float) -> dict[str, int]:
        await super().post(notices, timeout)
        about = {notice.role for notice in notices}
        return {role: sum(notice.role == role for notice in self._unexpired()) for role in about}


class CountsWhatWasWithdrawn(MemoryAnnouncements):
    async def withdraw(self, keys: Collection[str], timeout: float) -> None:
        for key in keys:
            if key in self._rows:
                notice, until = self._rows.pop(key)
                self._rows[secrets.token_hex(8)] = (notice, until)


class FeedOfAll(MemoryAnnouncements):
    def watch(self) -> AsyncIterator[Announcement]:
        return self._feeds.open(self._unexpired, lambda notice: True)


class FeedOfNewOnes(MemoryAnnouncements):
    def watch(self) -> AsyncIterator[Announcement]:
        return self._feeds.open(list, lambda notice: notice.urgent)


class FeedEnds(MemoryAnnouncements):
    async def watch(self) -> AsyncIterator[Announcement]:
        for notice in self._unexpired():
            if notice.urgent:
                yield notice


class FeedIsMute(MemoryAnnouncements):
    async def watch(self) -> AsyncIterator[Announcement]:
        await asyncio.Event().wait()
        yield self._unexpired()[0]


class ReadsAHundred(MemoryAnnouncements):
    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Announcement]:
        return (await super().read(roles, timeout))[:100]


WRONG_ANNOUNCEMENTS = {
    LosesTheBody: "what_is_announced_is_read_by_another",
    KnowsNoTime: "what_is_announced_is_read_by_another",
    ReadsEveryRole: "announcements_by_role",
    KeepsReplaced: "an_announcement_replaces_that_with_its_key",
    WithdrawsNothing: "an_announcement_that_is_withdrawn",
    WithdrawsTheFirst: "an_announcement_that_is_withdrawn",
    NeverExpires: "an_announcement_expires",
    PurgesEverything: "an_announcement_expires",
    CountsRequests: "a_post_counts_the_candidates",
    CountsWhatWasWithdrawn: "a_post_counts_the_candidates",
    FeedOfAll: "the_feed_of_urgent_announcements",
    FeedOfNewOnes: "the_feed_of_urgent_announcements",
    FeedEnds: "the_feed_of_urgent_announcements",
    FeedIsMute: "the_feed_of_urgent_announcements",
    ReadsAHundred: "many_announcements_at_once",
}


class TimesWithoutZone(MemoryRecords):
    async def healthy(
        self, role: str | None, timeout: float, *, key: str | None = None
    ) -> list[Record]:
        records = await super().healthy(role, timeout, key=key)
        return [
            {**record, "last_heartbeat": record["last_heartbeat"].replace(tzinfo=None)}
            for record in records
        ]


class LosesWhatIsNested(MemoryRecords):
    async def register(
        self, record: Mapping[str, Any], nonce: str, timeout: float
    ) -> Record | None:
        flat = {name: value for name, value in record.items() if not isinstance(value, dict)}
        return await super().register(flat, nonce, timeout)


class IgnoresTheId(MemoryRecords):
    async def healthy(
        self, role: str | None, timeout: float, *, key: str | None = None
    ) -> list[Record]:
        await super().register(
            {"id": "other", "role": "other", "load": 1, "ttl": 60.0}, "n", timeout
        )
        return await super().healthy(role, timeout)


class NewFirstHeartbeat(MemoryRecords):
    """Each registration has a new first heartbeat."""

    async def register(
        self, record: Mapping[str, Any], nonce: str, timeout: float
    ) -> Record | None:
        self._drop(record["id"])
        return await super().register(record, nonce, timeout)


class MergesFields(MemoryRecords):
    async def register(
        self, record: Mapping[str, Any], nonce: str, timeout: float
    ) -> Record | None:
        return await super().register(
            {**self._rows.get(record["id"], {}), **record}, nonce, timeout
        )


class RefreshCreates(MemoryRecords):
    async def refresh(self, record: Mapping[str, Any], timeout: float) -> Record | None:
        return await super().register(record, "none", timeout)


class NoTombstones(MemoryRecords):
    async def remove(self, key: str | int, nonce: str | None, timeout: float) -> bool:
        return await super().remove(key, None, timeout)


class TombstonesForAll(MemoryRecords):
    """A tombstone refuses every registration, not only that with its nonce."""

    async def register(
        self, record: Mapping[str, Any], nonce: str, timeout: float
    ) -> Record | None:
        row = self._rows.get(record["id"], {})
        return await super().register(record, row.get(records.TOMBSTONE, nonce), timeout)


class ListsTombstones(MemoryRecords):
    async def list_all(self, role: str | None, timeout: float) -> list[RecordWithRemaining]:
        buried = [
            RecordWithRemaining(row, 0.0) for row in self._rows.values() if records.TOMBSTONE in row
        ]
        return [*await super().list_all(role, timeout), *buried]


class AlwaysHealthy(MemoryRecords):
    async def healthy(
        self, role: str | None, timeout: float, *, key: str | None = None
    ) -> list[Record]:
        return [entry.record for entry in await self.list_all(role, timeout)]


class FindsTheMostLoaded(MemoryRecords):
    async def least_loaded(self, role: str, timeout: float) -> Record | None:
        return max(await self.healthy(role, timeout), key=records.by_load, default=None)


class SamplesOneTwice(MemoryRecords):
    async def sample(self, role: str, count: int, timeout: float) -> list[Record]:
        return (await self.healthy(role, timeout))[:1] * count


class ListsHealthyOnes(MemoryRecords):
    async def list_all(self, role: str | None, timeout: float) -> list[RecordWithRemaining]:
        return [entry for entry in await super().list_all(role, timeout) if entry.remaining > 0]


class PurgesWhatIsSilentForOneTTL(MemoryRecords):
    async def purge(self, ttls: float, timeout: float) -> int:
        return await super().purge(1, timeout)


class PurgesNothing(MemoryRecords):
    async def purge(self, ttls: float, timeout: float) -> int:
        return 0


class PublishesOlderOnes(MemoryRecords):
    async def publish(self, record: Mapping[str, Any], remaining: float, timeout: float) -> bool:
        row = self._rows.get(record["role"])
        if row is not None and records.is_published(row):
            self._drop(record["role"])
        return await super().publish(record, remaining, timeout)


class WithdrawsNewerOnes(MemoryRecords):
    async def withdraw(self, role: str, token: int, timeout: float) -> bool:
        return await super().withdraw(role, token + 100, timeout)


class PublishesOverServices(MemoryRecords):
    async def publish(self, record: Mapping[str, Any], remaining: float, timeout: float) -> bool:
        row = self._rows.get(record["role"])
        if row is not None and not records.is_published(row):
            self._drop(record["role"])
        return await super().publish(record, remaining, timeout)


class HintsOnlyAtFirst(MemoryRecords):
    async def watch(self, role: str) -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()


WRONG_RECORDS = {
    TimesWithoutZone: "a_record_is_stored_and_returned",
    LosesWhatIsNested: "a_record_is_stored_and_returned",
    IgnoresTheId: "a_record_is_stored_and_returned",
    NewFirstHeartbeat: "registering_again_keeps_the_first_heartbeat_only",
    MergesFields: "registering_again_keeps_the_first_heartbeat_only",
    RefreshCreates: "a_refresh_creates_nothing",
    NoTombstones: "a_late_duplicate_of_a_registration_revives_nothing",
    TombstonesForAll: "a_late_duplicate_of_a_registration_revives_nothing",
    ListsTombstones: "a_late_duplicate_of_a_registration_revives_nothing",
    AlwaysHealthy: "lookups_find_healthy_records",
    FindsTheMostLoaded: "lookups_find_healthy_records",
    SamplesOneTwice: "lookups_find_healthy_records",
    ListsHealthyOnes: "lookups_find_healthy_records",
    PurgesWhatIsSilentForOneTTL: "purge_deletes_those_that_were_silent_for_long",
    PurgesNothing: "purge_deletes_those_that_were_silent_for_long",
    PublishesOlderOnes: "a_published_leader",
    WithdrawsNewerOnes: "a_published_leader",
    PublishesOverServices: "a_leader_does_not_replace_a_healthy_service",
    HintsOnlyAtFirst: "hints_that_services_come_and_go",
}

CASES: list[tuple[Store, str]] = [
    *((WithAnnouncements(kind), test) for kind, test in WRONG_ANNOUNCEMENTS.items()),
    *((WithRecords(kind), test) for kind, test in WRONG_RECORDS.items()),
    (EachStoreHasItsOwn(), "what_is_announced_is_read_by_another"),
]
NAMES = [*WRONG_ANNOUNCEMENTS, *WRONG_RECORDS, EachStoreHasItsOwn]


@pytest.mark.parametrize(("store", "test"), CASES, ids=[kind.__name__ for kind in NAMES])
def test_a_wrong_store_fails(store: Store, test: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcement_contract, "WITHIN", 0.3)
    monkeypatch.setattr(record_contract, "WITHIN", 0.3)
    with pytest.raises((AssertionError, LookupError, ValueError)):
        getattr(OfOneStore(store), f"test_{test}")()


@pytest.mark.parametrize("test", sorted({test for _, test in CASES}))
def test_the_right_one_passes(test: str) -> None:
    """So a wrong one fails because of its fault."""
    getattr(OfOneStore(MemoryStore()), f"test_{test}")()
