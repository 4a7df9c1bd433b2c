"""Stores that are wrong on purpose must fail the contract, each in the test that is named here.

Wrong announcements and service records are in `test_wrong_announcements.py`.
"""

from __future__ import annotations

import asyncio
import gc
import random
import warnings
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from coord.core.history import PastTerm
from coord.core.kept import Kept
from coord.core.lease import REVOKED, Lease, Revision
from coord.core.operations import (
    Answer,
    Claim,
    Failure,
    Operation,
    Override,
    Release,
    Renew,
    Result,
    Retire,
)
from coord.stores.protocol import Store
from coord.testing import ContractServer, ServerContract, StoreContract
from tests.support.levels import some
from tests.testing.net_store import NetServer, NetStore, Request, pack


class NetContractServer(ContractServer):
    def __init__(self, server: NetServer, kind: type[NetStore]) -> None:
        self.net, self.kind, self.port = server, kind, server.port

    def make_store(self, host: str, port: int) -> Store:
        return self.kind(host, port)

    def freeze(self) -> bool:
        self.net.freeze()
        return True

    def thaw(self) -> None:
        self.net.thaw()

    def restart(self) -> bool:
        self.net.restart()
        return True

    def take_rights_away(self) -> bool:
        self.net.denied = True
        return True

    def give_rights_back(self) -> None:
        self.net.denied = False


class NetContract(ServerContract, StoreContract):
    """Both contracts, for one kind of store."""

    def __init__(self, server: ContractServer | None = None) -> None:
        if server is not None:
            self.server = server

    @asynccontextmanager
    async def hold_row(self, role: str) -> AsyncIterator[None]:
        reader, writer = await asyncio.open_connection(self.server.host, self.server.port)
        writer.write(pack(("hold", role)))
        await reader.readexactly(4)
        try:
            yield
        finally:
            writer.write(pack(("free", role)))
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.transport.abort()


@pytest.fixture
def net_server() -> Iterator[NetServer]:
    server = NetServer()
    yield server
    server.stop()


@pytest.fixture(scope="module", autouse=True)
def only_new_garbage() -> None:
    """Let the many collections here look only through what these tests create."""
    gc.collect()
    gc.freeze()


class NoClockStore(NetStore):
    """A right store without a clock: `remaining` is the ttl, and no claim goes by it."""

    max_clock_skew = None

    async def _swap(self, operations: Sequence[Request], timeout: float) -> list[Result]:
        request = [
            replace(item, skew=None) if isinstance(item, Claim) else item for item in operations
        ]
        results = await super()._swap(request, timeout)
        return [
            item._replace(lease=timeless(item.lease)) if isinstance(item, Answer) else item
            for item in results
        ]

    def begin(self, operation: Operation, timeout: float) -> Any:
        return None

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        return [timeless(lease) for lease in await super().read(roles, timeout)]

    async def _next_row(self, reader: asyncio.StreamReader) -> Lease:
        return timeless(await super()._next_row(reader))


def timeless(lease: Lease) -> Lease:
    return replace(lease, remaining=0.0 if lease.holder is None else lease.ttl)


TESTS = [name.removeprefix("test_") for name in dir(NetContract) if name.startswith("test_")]


@pytest.mark.parametrize("kind", some([NetStore, NoClockStore], lambda kind: kind is NetStore))
@pytest.mark.parametrize("test", TESTS)
def test_right_stores_pass(test: str, kind: type[NetStore], net_server: NetServer) -> None:
    """Among them the store that the wrong ones are made from."""
    getattr(NetContract(NetContractServer(net_server, kind)), f"test_{test}")()


class IgnoresTimeouts(NetStore):
    async def _swap(self, operations: Sequence[Request], timeout: float) -> list[Result]:
        return await super()._swap(operations, 3600)


class RaisesFromSwaps(NetStore):
    async def claim(self, claim: Claim, timeout: float) -> Result:
        result = await super().claim(claim, timeout)
        if isinstance(result, Failure):
            raise ConnectionError(result.detail)
        return result


class NeverUnknown(NetStore):
    async def claim(self, claim: Claim, timeout: float) -> Result:
        result = await super().claim(claim, timeout)
        return result._replace(unknown=False) if isinstance(result, Failure) else result


class FeedHangs(NetStore):
    async def _next_row(self, reader: asyncio.StreamReader) -> Lease:
        try:
            return await super()._next_row(reader)
        except Exception:
            await asyncio.Event().wait()
            raise


class CloseFreesNothing(NetStore):
    leaked: list[object] = []  # noqa: RUF012 # it is the fault

    async def close(self) -> None:
        self.leaked.append(self._idle)
        self._idle = []


class CloseTakesLong(NetStore):
    async def close(self) -> None:
        await asyncio.sleep(3)
        await super().close()


class CannotAbandon(NetStore):
    abandon = None  # type: ignore[assignment]


class OpenChecksNothing(NetStore):
    async def open(self, timeout: float) -> None:
        return None


class ShowsPassword(NetStore):
    @property
    def url(self) -> str:
        return "net://user:secret@localhost/db"


class SkewIsText(NetStore):
    max_clock_skew = "sixty"  # type: ignore[assignment]


class AnswersInReverse(NetStore):
    async def swap_all(
        self, operations: Sequence[Claim | Release], timeout: float
    ) -> Sequence[Result]:
        return list(reversed(await super().swap_all(operations, timeout)))


class BeginRaises(NetStore):
    def begin(self, operation: Operation, timeout: float) -> Any:
        raise RuntimeError("not now")


class ReadsTheClockFirst(NetStore):
    clock_first = True


class Deadlocks(NetStore):
    def batch_order(self, operations: Sequence[Request]) -> list[int]:
        return list(range(len(operations)))


class ShowsLosersTheOldRow(NetStore):
    async def claim(self, claim: Claim, timeout: float) -> Result:
        rows = await self.read([claim.role], timeout)
        await asyncio.sleep(random.uniform(0.001, 0.01))
        result = await super().claim(claim, timeout)
        if isinstance(result, Answer) and not result.applied:
            return Answer(False, rows[0] if rows else Lease(claim.role))
        return result


class FeedIsMute(NetStore):
    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        await asyncio.Event().wait()
        yield Lease("never")


class TokensFall(NetStore):
    async def claim(self, claim: Claim, timeout: float) -> Result:
        result = await super().claim(claim, timeout)
        if isinstance(result, Answer) and result.lease.token > 1:
            return Answer(result.applied, replace(result.lease, token=1))
        return result


class RenewsForAnybody(NetStore):
    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        results = []
        for renewal in renewals:
            rows = await self.read([renewal.role], timeout)
            if rows and rows[0].holder is not None:
                row = rows[0]
                renewal = replace(renewal, holder=row.holder, token=row.token)
            results += await super().renew([renewal], timeout)
        return results


class ReadsNothing(NetStore):
    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        return []


class KeepsUnderAnyToken(NetStore):
    """The text is written beside the guarded swap, as in a second query."""

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        results = list(await super().renew(renewals, timeout))
        for renewal, result in zip(renewals, results, strict=True):
            if isinstance(result, Answer) and not result.applied and result.lease.holder:
                row = result.lease
                again = Renew(
                    row.role, row.holder or "", row.token, row.beat + 1, row.ttl, keep=renewal.keep
                )
                await super().renew([again], timeout)
        return results


class ReleaseForgetsToKeep(NetStore):
    async def _swap(self, operations: Sequence[Request], timeout: float) -> list[Result]:
        sent = [
            replace(item, keep=None) if isinstance(item, Release) else item for item in operations
        ]
        return await super()._swap(sent, timeout)


class ClaimForgetsTheText(NetStore):
    async def claim(self, claim: Claim, timeout: float) -> Result:
        result = await super().claim(claim, timeout)
        if isinstance(result, Answer) and result.applied and result.lease.token > 1:
            row = result.lease
            forget = Renew(row.role, claim.holder, row.token, row.beat + 0.5, row.ttl, keep="")  # type: ignore[arg-type]
            await super().renew([forget], timeout)
        return result


class RenewalForgetsTheText(NetStore):
    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        sent = [item if item.keep is not None else replace(item, keep="") for item in renewals]
        return await super().renew(sent, timeout)


class BatchKeepsTheFirstText(NetStore):
    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        first = next((item.keep for item in renewals if item.keep is not None), None)
        sent = [replace(item, keep=first if item.keep else item.keep) for item in renewals]
        return await super().renew(sent, timeout)


class KeptShowsNoToken(NetStore):
    async def kept(self, role: str, timeout: float) -> Kept:
        return replace(await super().kept(role, timeout), token=0)


class CutsLongTexts(NetStore):
    async def kept(self, role: str, timeout: float) -> Kept:
        kept = await super().kept(role, timeout)
        return replace(kept, text=kept.text[:65_535])


class PassesOnAtOnce(NetStore):
    async def override(self, override: Override, timeout: float) -> Result:
        result = await super().override(override, timeout)
        if isinstance(result, Answer) and result.applied and override.holder == REVOKED:
            claim = Claim(override.role, "z", 1, 1, override_revision(result), takeover=True)
            lease = await super().claim(claim, timeout)
            assert isinstance(lease, Answer)
            await super().release(Release(override.role, "z", lease.lease.token, 2), timeout)
        return result


class OverridesAnything(NetStore):
    async def override(self, override: Override, timeout: float) -> Result:
        rows = await self.read([override.role], timeout)
        revisions = rows[0].revision if rows else Lease(override.role).revision
        return await super().override(replace(override, expected=revisions), timeout)


class ClaimsPaused(NetStore):
    async def claim(self, claim: Claim, timeout: float) -> Result:
        rows = await self.read([claim.role], timeout)
        if rows and rows[0].paused and claim.takeover:
            revoked = Override(claim.role, rows[0].revision, REVOKED, 1)
            result = await self.override(revoked, timeout)
            claim = replace(claim, expected=override_revision(result))
        return await super().claim(claim, timeout)


class ShortensRevoked(NetStore):
    async def override(self, override: Override, timeout: float) -> Result:
        result = await super().override(override, timeout)
        if isinstance(result, Answer):
            return result._replace(lease=replace(result.lease, ttl=override.ttl))
        return result


class ForgetsWhoOverrides(NetStore):
    async def override(self, override: Override, timeout: float) -> Result:
        return await super().override(replace(override, by=""), timeout)


def override_revision(result: Result) -> Revision:
    assert isinstance(result, Answer)
    return result.lease.revision


class RetiresWithoutFloor(NetStore):
    """It deletes rows under a prefix that no role has, so that tokens begin at 1 again."""

    async def retire(self, requests: Sequence[Retire], timeout: float) -> Sequence[bool]:
        return await super().retire([item._replace(prefix="?") for item in requests], timeout)


class RetiresWhatIsHeld(NetStore):
    async def retire(self, requests: Sequence[Retire], timeout: float) -> Sequence[bool]:
        return [bool(await self.read([request.role], timeout)) for request in requests]


class RetiresAnyRevision(NetStore):
    """It deletes a vacant row although somebody has used the role since."""

    async def retire(self, requests: Sequence[Retire], timeout: float) -> Sequence[bool]:
        revisions = {lease.role: lease.revision for lease in await self.read(None, timeout)}
        return await super().retire(
            [item._replace(expected=revisions.get(item.role, item.expected)) for item in requests],
            timeout,
        )


class FloorOfTheLast(NetStore):
    """The token of the role that was retired last is the floor, also if another one was higher."""

    last = 0

    async def claim(self, claim: Claim, timeout: float) -> Result:
        return await super().claim(replace(claim, floor=max(claim.floor, self.last)), timeout)

    async def retire(self, requests: Sequence[Retire], timeout: float) -> Sequence[bool]:
        self.last = requests[-1].expected.token
        return await super().retire([item._replace(prefix="?") for item in requests], timeout)


class KeepsHistoryOfRetired(NetStore):
    """It deletes the row, and still shows its last terms."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._remembered: list[PastTerm] = []

    async def past(self, roles: Collection[str] | None, timeout: float) -> Sequence[PastTerm]:
        return [*await super().past(roles, timeout), *self._remembered]

    async def retire(self, requests: Sequence[Retire], timeout: float) -> Sequence[bool]:
        self._remembered += await super().past([item.role for item in requests], timeout)
        return await super().retire(requests, timeout)


class ForgetsWhatARetiredRoleIsPausedWith(NetStore):
    """A role that is paused without a row begins at token 0, though it was retired."""

    async def override(self, override: Override, timeout: float) -> Result:
        result = await super().override(override, timeout)
        if isinstance(result, Answer) and override.expected == Revision(None, 0, 0):
            return result._replace(lease=replace(result.lease, token=0))
        return result


class RetiresNothing(NetStore):
    async def retire(self, requests: Sequence[Retire], timeout: float) -> Sequence[bool]:
        return [False] * len(requests)


WRONG = {
    RetiresWithoutFloor: "a_retired_role_has_no_row_and_its_next_token_is_higher",
    RetiresWhatIsHeld: "only_a_vacant_row_that_was_seen_and_is_old_enough_is_deleted",
    RetiresNothing: "many_rows_are_deleted_together",
    RetiresAnyRevision: "only_a_vacant_row_that_was_seen_and_is_old_enough_is_deleted",
    FloorOfTheLast: "a_floor_is_raised_by_each_role_of_its_prefix",
    KeepsHistoryOfRetired: "a_retired_role_has_no_row_and_its_next_token_is_higher",
    ForgetsWhatARetiredRoleIsPausedWith: "a_retired_role_that_is_paused_keeps_its_tokens_rising",
    PassesOnAtOnce: "an_operator_revokes_a_lease_which_runs_out_before_another_takes_it",
    OverridesAnything: "an_override_needs_every_part_of_what_it_expects",
    ClaimsPaused: "nobody_claims_a_paused_role",
    ShortensRevoked: "a_paused_role_is_resumed_as_a_revoked_lease",
    ForgetsWhoOverrides: "the_history_names_who_ended_a_term",
    IgnoresTimeouts: "requests_end_in_time_although_nothing_gets_through",
    RaisesFromSwaps: "a_refused_connection",
    NeverUnknown: "a_claim_whose_answer_is_lost_is_unknown",
    FeedHangs: "a_feed_notices_that_its_connection_is_lost",
    CloseFreesNothing: "close_takes_no_longer_than_a_second_and_frees_everything",
    CloseTakesLong: "close_takes_no_longer_than_a_second_and_frees_everything",
    CannotAbandon: "the_attributes",
    OpenChecksNothing: "a_refused_connection",
    ShowsPassword: "the_attributes",
    SkewIsText: "the_attributes",
    AnswersInReverse: "the_results_of_a_batch_are_in_the_order_of_its_requests",
    BeginRaises: "what_is_sent_at_once_has_the_same_results",
    ReadsTheClockFirst: "a_request_that_waited_for_a_lock_reads_the_clock_after_it",
    Deadlocks: "batches_for_the_same_roles_do_not_keep_each_other_from_ending",
    ShowsLosersTheOldRow: "every_loser_of_a_race_sees_the_row_of_the_winner",
    FeedIsMute: "its_own_stores_writes_are_heard",
    TokensFall: "tokens_never_fall",
    RenewsForAnybody: "renew_is_guarded",
    ReadsNothing: "read_some_all_none",
    KeepsUnderAnyToken: "nobody_keeps_a_text_under_an_older_token",
    ReleaseForgetsToKeep: "a_release_may_replace_the_kept_text",
    ClaimForgetsTheText: "the_kept_text_outlives_terms",
    RenewalForgetsTheText: "a_renewal_may_replace_the_kept_text",
    BatchKeepsTheFirstText: "a_batch_in_which_some_keep_a_text",
    KeptShowsNoToken: "a_renewal_may_replace_the_kept_text",
    CutsLongTexts: "a_long_text_is_kept",
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(("kind", "test"), WRONG.items(), ids=[kind.__name__ for kind in WRONG])
def test_a_wrong_store_fails(kind: type[NetStore], test: str, net_server: NetServer) -> None:
    contract = NetContract(NetContractServer(net_server, kind))
    contract.late, contract.soon = 2.0, 3.0
    with warnings.catch_warnings(record=True) as reports:
        warnings.simplefilter("always")
        with pytest.raises((AssertionError, ConnectionError, RuntimeError)):
            getattr(contract, f"test_{test}")()
        CloseFreesNothing.leaked.clear()
        gc.collect()  # what a wrong store leaves is complained of here, and in no other test
    # A contract that fails has begun no request that it does not end.
    assert [text for item in reports if "never awaited" in (text := str(item.message))] == []
    # The test fails because of the fault: the right store passes it on the same server.
    net_server.thaw()
    getattr(NetContract(NetContractServer(net_server, NetStore)), f"test_{test}")()
