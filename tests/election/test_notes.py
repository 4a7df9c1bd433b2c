"""Notes of a role: written under the token of a term, kept beyond it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

import coord
from coord import AsyncCoordinator, Coordinator, Term
from coord.core.kept import MAX_NOTES_BYTES, Values
from coord.core.operations import Answer, Claim, Failure, Renew, Result
from coord.errors import StoreRefused
from coord.runtime.clock import total_seconds
from coord.stores.memory.store import MemoryStore
from coord.testing import Fault, FaultyStore
from coord.testing.clocks import Machine
from coord.testing.clocks import run as run_on_virtual_time
from tests.support.store_time import RealTime
from tests.support.waits import eventually


def run(body: Callable[[FaultyStore, AsyncCoordinator, Term], Awaitable[None]]) -> None:
    """Run the body with the term of a leadership with a ttl of 2 s, on a store that can fail."""

    async def main(machine: Machine) -> None:
        store = FaultyStore(MemoryStore(now=lambda: machine.now().total))
        async with AsyncCoordinator(store=store, now=machine.now) as c:
            lead = c.leadership("r", ttl=2)
            term = await lead.acquire(timeout=5)
            assert term is not None
            await body(store, c, term)

    run_on_virtual_time(main, 30)


def test_notes_outlive_terms(two: tuple[Coordinator, Coordinator]) -> None:
    first, second = two
    assert first.notes("r") == {}
    with first.leadership("r", ttl=5) as lead:
        assert lead.wait(10)
        assert lead.term.notes() == {}
        lead.term.note("job", 1796007600.5)
        lead.term.note({"ü🦑": {"a": [1, None, "'\n\x01"]}, "gone": "x"})
        lead.term.note("gone", None)
        assert second.notes("r") == lead.term.notes()
        old = lead.term
    notes = {"job": 1796007600.5, "ü🦑": {"a": [1, None, "'\n\x01"]}}
    assert first.notes("r") == second.notes("r") == notes
    with pytest.raises(coord.LeadershipLost):
        old.note("job", 2)
    results: list[Any] = []
    with second.leadership(
        "r", ttl=5, on_elected=lambda term: results.append(term.notes())
    ) as lead:
        eventually(lambda: results)
        assert results == [notes]
        lead.term.note("job", 2)
    assert first.notes("r") == {**notes, "job": 2}
    assert first.notes("other") == {}


def test_what_notes_returns_may_be_changed_by_the_caller() -> None:
    async def body(_: FaultyStore, c: AsyncCoordinator, term: Term) -> None:
        value = {"list": [1]}
        await term.note_async("k", value)
        value["list"].append(2)
        (await term.notes_async())["k"]["list"].append(3)
        (await c.notes("r"))["k"]["list"].append(4)
        assert await term.notes_async() == await c.notes("r") == {"k": {"list": [1]}}

    run(body)


def test_a_note_is_written_at_once_and_others_travel_with_it() -> None:
    async def body(store: FaultyStore, c: AsyncCoordinator, term: Term) -> None:
        await term.notes_async()
        store.calls.clear()
        store.slow("renew", before=0.1)
        await asyncio.gather(*(term.note_async(f"k{n}", n) for n in range(20)))
        assert store.calls == ["renew", "renew"]
        assert await c.notes("r") == {f"k{n}": n for n in range(20)}
        store.calls.clear()
        assert len(await term.notes_async()) == 20
        assert store.calls == []

    run(body)


class Carrying(MemoryStore):
    """Records which renewals carry a text."""

    def __init__(self, now: Callable[[], float] = total_seconds) -> None:
        super().__init__(now)
        self.carried: list[list[bool]] = []

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        self.carried.append([renewal.keep is not None for renewal in renewals])
        return await super().renew(renewals, timeout)


def test_a_renewal_without_news_carries_nothing(store_time: RealTime) -> None:
    store = Carrying(store_time.total)

    async def main() -> None:
        async with (
            store_time.async_coordinator(store=store) as c,
            c.leadership("r", ttl=0.6) as lead,
        ):
            assert await lead.wait(5)
            await lead.term.note_async("k", 1)
            await store_time.soon(lambda: len(store.carried) > 3)

    store_time.run(main)
    assert [carried for carried in store.carried if True in carried] == [[True]]


@pytest.mark.parametrize("fault", [Fault.UNKNOWN_DONE, Fault.UNKNOWN_NOT_DONE, Fault.NOT_DONE])
def test_a_write_without_an_answer_is_sent_again(fault: Fault) -> None:
    async def body(store: FaultyStore, c: AsyncCoordinator, term: Term) -> None:
        await term.notes_async()
        store.fail("renew", fault, 2)
        await term.note_async("k", 1)
        assert await c.notes("r") == {"k": 1}
        assert term.held

    run(body)


def test_a_write_that_was_never_answered_is_unknown_unless_a_read_shows_it() -> None:
    async def body(store: FaultyStore, c: AsyncCoordinator, term: Term) -> None:
        await term.note_async("k", 1)
        store.fail("renew", Fault.UNKNOWN_NOT_DONE, None)
        store.fail("claim", Fault.NOT_DONE, None)
        with pytest.raises(coord.OutcomeUnknown, match="under token 1 of 'r'"):
            await term.note_async("k", 2)
        assert not term.held
        assert await c.notes("r") == {"k": 1}

    run(body)

    async def shown(store: FaultyStore, c: AsyncCoordinator, term: Term) -> None:
        await term.notes_async()
        store.fail("renew", Fault.UNKNOWN_DONE, 1)
        store.fail("renew", Fault.UNKNOWN_NOT_DONE, 100)
        await term.note_async("k", 2)
        assert not term.held
        assert await c.notes("r") == {"k": 2}

    run(shown)


def test_a_write_that_was_certainly_not_applied() -> None:
    async def body(store: FaultyStore, c: AsyncCoordinator, term: Term) -> None:
        await term.note_async("k", 1)
        store.fail("renew", Fault.NOT_DONE, None)
        with pytest.raises(coord.LeadershipLost):
            await term.note_async("k", 2)
        store.heal()
        assert await c.notes("r") == {"k": 1}

    run(body)


def test_nobody_writes_under_an_older_token() -> None:
    async def body(store: FaultyStore, c: AsyncCoordinator, term: Term) -> None:
        await term.note_async("k", 1)
        await store.inner.claim(Claim("r", "other", 1, 60.0, takeover=True), 1)
        with pytest.raises(coord.StaleToken, match="refuses token 1: it has already seen token 2"):
            await term.note_async("k", 2)
        assert await c.notes("r") == {"k": 1}
        with pytest.raises(coord.LeadershipLost):
            await term.note_async("k", 3)

    run(body)


def test_notes_are_read_under_the_token_of_the_term() -> None:
    async def body(store: FaultyStore, _: AsyncCoordinator, term: Term) -> None:
        await store.inner.claim(Claim("r", "other", 1, 60.0, takeover=True), 1)
        with pytest.raises(coord.StaleToken, match="token 2"):
            await term.notes_async()

    run(body)


class Behind(MemoryStore):
    """Its first reads of texts come from a copy that is behind."""

    behind = 2

    async def kept(self, role: str, timeout: float) -> Any:
        self.behind -= 1
        return await super().kept("absent" if self.behind >= 0 else role, timeout)


def test_a_read_that_is_older_than_the_term_is_repeated() -> None:
    store = Behind()
    with Coordinator(store=store) as c, c.leadership("r", ttl=5) as lead:
        assert lead.wait(5)
        lead.term.note("k", 1)
        assert store.behind == -1
    store.behind = 10**9
    with (
        Coordinator(store=store, timeout=0.2) as c,
        c.leadership("r", ttl=5) as lead,
    ):
        assert lead.wait(5)
        with pytest.raises(coord.StoreUnavailable, match="as it was before token 2"):
            lead.term.notes()


def test_a_store_that_refuses_a_text_keeps_its_leader(store_time: RealTime) -> None:
    class Small(MemoryStore):
        async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
            if any(len(renewal.keep or "") > 100 for renewal in renewals):
                refusal = Failure(unknown=False, detail="no space", refusal=StoreRefused)
                return [refusal] * len(renewals)
            return await super().renew(renewals, timeout)

    async def main() -> None:
        store = Small(now=store_time.total)
        async with (
            store_time.async_coordinator(store=store) as c,
            c.leadership("r", ttl=1) as lead,
        ):
            assert await lead.wait(5)
            term = lead.term
            await term.note_async("k", 1)
            with pytest.raises(coord.StoreRefused, match="no space"):
                await term.note_async("long", "x" * 200)
            assert await term.notes_async() == {"k": 1}
            await term.note_async("k", 2)
            await asyncio.sleep(1.5)
            assert term.held
            assert await c.notes("r") == {"k": 2}

    store_time.run(main)


class Overtaken(MemoryStore):
    """The answer to a note is lost, and a newer term begins and writes a note of its own."""

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        results = await super().renew(renewals, timeout)
        first = results[0]
        if renewals[0].keep is None or not (isinstance(first, Answer) and first.applied):
            return results
        await self.claim(Claim("r", "other", 1, 60.0, takeover=True), 1)
        text = Values({"k": 1, "other": 1}, {}).encode()
        await super().renew([Renew("r", "other", 2, 2, 60.0, keep=text)], 1)
        return [Failure(unknown=True, detail="lost")] * len(renewals)


def test_a_note_that_a_newer_term_wrote_over_is_not_called_refused() -> None:
    with Coordinator(store=Overtaken()) as c, c.leadership("r", ttl=5) as lead:
        assert lead.wait(5)
        with pytest.raises(coord.OutcomeUnknown, match="token 2 has written since"):
            lead.term.note("k", 1)
        assert c.notes("r") == {"k": 1, "other": 1}


def test_a_refusal_after_a_lost_answer_does_not_say_what_is_kept() -> None:
    async def body(store: FaultyStore, c: AsyncCoordinator, term: Term) -> None:
        await term.note_async("a", 1)
        store.fail("renew", Fault.UNKNOWN_DONE, 1)
        store.fail("renew", Fault.PERMANENT, 1)
        await term.note_async("b", 2)  # the role keeps it: a read shows that
        assert term.held
        assert await term.notes_async() == await c.notes("r") == {"a": 1, "b": 2}
        store.fail("renew", Fault.UNKNOWN_NOT_DONE, 1)
        store.fail("renew", Fault.PERMANENT, 1)
        with pytest.raises(coord.OutcomeUnknown):
            await term.note_async("b", 3)
        await term.note_async("c", 4)
        assert await term.notes_async() == await c.notes("r") == {"a": 1, "b": 2, "c": 4}

    run(body)


def test_a_refused_note_takes_no_later_one_with_it() -> None:
    class Slow(MemoryStore):
        refuses = True

        async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
            if renewals[0].keep is None or not self.refuses:
                return await super().renew(renewals, timeout)
            self.refuses = False
            await asyncio.sleep(0.05)  # the second note is written meanwhile
            return [Failure(unknown=False, detail="no space", refusal=StoreRefused)]

    async def main() -> None:
        async with AsyncCoordinator(store=Slow()) as c:
            lead = c.leadership("r", ttl=2)
            term = await lead.acquire(timeout=5)
            assert term is not None
            await term.notes_async()
            await asyncio.gather(term.note_async("a", 1), term.note_async("b", 2))
            await term.note_async("c", 3)
            assert await c.notes("r") == {"a": 1, "b": 2, "c": 3}

    asyncio.run(asyncio.wait_for(main(), 30))


def test_notes_that_were_refused_together_are_not_taken_for_a_later_one() -> None:
    class Full(MemoryStore):
        async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
            if '"no"' not in (renewals[0].keep or ""):
                return await super().renew(renewals, timeout)
            await asyncio.sleep(0.05)
            return [Failure(unknown=False, detail="no space", refusal=StoreRefused)]

    async def main() -> None:
        async with AsyncCoordinator(store=Full()) as c:
            lead = c.leadership("r", ttl=2)
            term = await lead.acquire(timeout=5)
            assert term is not None
            await term.notes_async()

            async def first() -> None:
                with pytest.raises(coord.StoreRefused, match="no space"):
                    await term.note_async("no", 1)
                await term.note_async("later", 1)  # before the others have learned of it

            async def other() -> None:
                with pytest.raises(coord.StoreRefused, match="no space"):
                    await term.note_async("other", 1)

            await asyncio.gather(first(), other(), other())
            assert await c.notes("r") == await term.notes_async() == {"later": 1}

    asyncio.run(asyncio.wait_for(main(), 30))


def test_work_that_drains_may_write_notes() -> None:
    with Coordinator("memory://") as c:
        lead = c.leadership("r", ttl=5)
        begun, goes_on = threading.Event(), threading.Event()

        def work() -> None:
            term = coord.require_term()
            begun.set()
            assert goes_on.wait(10)
            assert not term.held
            term.note("ended", True)

        thread = threading.Thread(target=lambda: lead.run(work))
        thread.start()
        assert begun.wait(10)
        down = threading.Thread(target=lambda: lead.step_down(cooldown=0))
        down.start()
        eventually(lambda: not lead.is_leader)
        goes_on.set()
        thread.join(10)
        down.join(10)
        assert c.notes("r") == {"ended": True}


INVALID: list[tuple[tuple[Any, ...], str]] = [
    (("", 1), "invalid key '': must be a string of 1 to 120 bytes"),
    (("x" * 121, 1), "it has 121 bytes"),
    (("a\0b", 1), "without NUL"),
    (("k",), "must be a key and a value, or a dict of notes"),
    ((1, 2), "must be a key and a value, or a dict of notes"),
    (({"a": 1}, 2), "must be a key and a value, or a dict of notes"),
    (({3: 1},), "invalid key 3"),
    (("k", float("nan")), "invalid note 'k' nan: must be a value that JSON can hold"),
    (("k", {1, 2}), "must be a value that JSON can hold"),
    (("k", "\ud800"), "must be a value that JSON can hold"),
    (("k", "x" * MAX_NOTES_BYTES), "must fit in 65,536 bytes of JSON with the other notes"),
]


@pytest.mark.parametrize(("arguments", "message"), INVALID)
def test_invalid_notes_are_refused_before_they_are_sent(
    arguments: tuple[Any, ...], message: str
) -> None:
    store = Carrying()
    with Coordinator(store=store) as c, c.leadership("r", ttl=5) as lead:
        assert lead.wait(5)
        lead.term.note("other", 1)
        with pytest.raises(coord.BadArgument) as caught:
            lead.term.note(*arguments)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert lead.term.notes() == c.notes("r") == {"other": 1}


def test_notes_together_have_a_limit() -> None:
    async def body(_: FaultyStore, c: AsyncCoordinator, term: Term) -> None:
        await term.note_async("a", "x" * 40_000)
        with pytest.raises(coord.BadArgument, match="they would have 8"):
            await term.note_async("b", "x" * 40_000)
        await term.note_async({"a": None, "b": "x" * 40_000})
        assert list(await c.notes("r")) == ["b"]

    run(body)


def test_a_store_without_notes_says_so() -> None:
    class Without(MemoryStore):
        kept = None  # type: ignore[assignment]

    with Coordinator(store=Without()) as c, c.leadership("r", ttl=5) as lead:
        assert lead.wait(5)
        for call in (lead.term.notes, lambda: lead.term.note("k", 1), lambda: c.notes("r")):
            with pytest.raises(coord.BadArgument, match="must be a store with notes and ticks"):
                call()
        assert lead.is_leader


def test_a_damaged_text_is_named_and_left_alone() -> None:
    async def body(store: FaultyStore, c: AsyncCoordinator, term: Term) -> None:
        inner = store.inner
        assert isinstance(inner, MemoryStore)
        for text in ("{", "[]", '{"notes": 3}', '{"ticks": [1]}'):
            inner._kept["r"] = text
            for call in (term.notes_async, lambda: term.note_async("k", 1), lambda: c.notes("r")):
                with pytest.raises(coord.StoreRefused, match="role 'r' keeps is damaged"):
                    await call()
            assert inner._kept["r"] == text
        inner._kept["r"] = ""
        await term.note_async("k", 1)

    run(body)


def test_on_coords_own_loop_a_note_is_awaited() -> None:
    async def body(_: FaultyStore, __: AsyncCoordinator, term: Term) -> None:
        with pytest.raises(coord.CoordError, match=r"await term\.note_async\(\)"):
            term.note("k", 1)
        with pytest.raises(coord.CoordError, match=r"await term\.notes_async\(\)"):
            term.notes()

    run(body)


def test_a_coroutine_of_another_loop_writes_notes() -> None:
    """A coroutine function under `@leader_only` runs on a loop of its own."""
    with Coordinator("memory://") as c:

        @coord.leader_only("r", coordinator=c)
        async def job() -> dict[str, Any]:
            term = coord.require_term()
            await term.note_async("k", 1)
            term.note("k2", 2)
            return await term.notes_async()

        assert asyncio.run(job()) == {"k": 1, "k2": 2}


def test_after_the_coordinator_was_closed() -> None:
    c = Coordinator("memory://")
    with c.leadership("r", ttl=5) as lead:
        assert lead.wait(5)
        term = lead.term
    with pytest.raises(coord.LeadershipLost):
        term.note("k", 1)
    c.close()
    with pytest.raises(coord.CoordinatorClosed):
        term.note("k", 1)
    with pytest.raises(coord.CoordinatorClosed):
        c.notes("r")
