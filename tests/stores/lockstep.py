"""Two stores, the same operations, the same answers. `MemoryStore` is the oracle; a test gives the
store to be held."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from coord.core.history import PastTerm
from coord.core.lease import PAUSED, REVOKED, Lease, Revision
from coord.core.operations import Answer, Claim, Override, Release, Renew, Result
from coord.stores.memory.store import MemoryStore
from coord.stores.protocol import HasKept, Overridable, Store

T = TypeVar("T")
ROLES, HOLDERS = ("one", "two", "% three 🦑"), ("a", "b", "c")
roles, holders, numbers = st.sampled_from(ROLES), st.sampled_from(HOLDERS), st.integers(0, 6)
successors = st.none() | holders | st.just(PAUSED)
ttls = st.sampled_from((0.1, 1.0, 2.5, 30.0))
infos = st.dictionaries(
    st.text(max_size=3), st.none() | st.integers(-9, 9) | st.text(max_size=3), max_size=2
)
texts = st.none() | st.sampled_from(("", '{"notes":{"a":1}}', "ü\n'"))
_serial = itertools.count()


class ManualClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Lockstep(RuleBasedStateMachine):
    """Subclass it, set `tested` and `loop` before it runs, and `clock` where the tested store runs
    by it.

    Without a `clock` time stands still for the oracle, nothing runs out, and `remaining` is not
    compared."""

    tested: ClassVar[Store]
    loop: ClassVar[asyncio.AbstractEventLoop]
    clock: ClassVar[ManualClock | None] = None

    def __init__(self) -> None:
        super().__init__()
        # The tested store is one for all examples; each has roles of its own in it.
        self.tail = f" {os.getpid()}-{next(_serial)}"
        self.oracle = MemoryStore(self.clock or ManualClock())
        self.seen: dict[str, Revision] = {}

    @property
    def keeps(self) -> bool:
        return isinstance(self.tested, HasKept)

    def wait(self, request: Awaitable[T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(request, 30))

    def ask_both(self, request: Callable[[Store], Awaitable[T]]) -> tuple[T, T]:
        """Return the answers of the tested store and of the oracle, in one run of the loop."""

        async def answers() -> tuple[T, T]:
            return await request(self.tested), await request(self.oracle)

        return self.wait(answers())

    def view(self, lease: Lease) -> tuple[object, ...]:
        remaining = lease.remaining if self.clock is not None else None
        info = json.dumps(dict(lease.info), sort_keys=True)  # RethinkDB sorts the keys
        return lease.role, lease.revision, lease.ttl, remaining, info

    def compare(self, request: object, tested: Result, oracle: Result) -> None:
        assert isinstance(oracle, Answer)
        assert isinstance(tested, Answer), f"{request}: {tested}"
        assert tested.applied == oracle.applied, f"{request}: {tested} but {oracle}"
        *state, info = self.view(tested.lease)
        *expected, expected_info = self.view(oracle.lease)
        assert state == expected, f"{request}"
        # The answer to a renewal that was applied may lack what the row says about its holder.
        if not (isinstance(request, Renew) and tested.applied and not tested.lease.info):
            assert info == expected_info, f"{request}"
        self.seen[oracle.lease.role] = oracle.lease.revision

    def row(self, role: str) -> Lease:
        return self.oracle._row(role)

    @rule(
        name=roles,
        holder=holders,
        beat=numbers,
        ttl=ttls,
        expects=st.sampled_from(("nothing", "what is there", "what was seen", "something wrong")),
        takeover=st.booleans(),
        skew=st.sampled_from((None, 0.0, 0.5, 3.0)),
        floor=st.sampled_from((0, 0, 1, 5, 9)),
        info=infos,
        lost=st.none() | st.tuples(numbers, st.just("suspended")),
    )
    def claim(
        self,
        name: str,
        holder: str,
        beat: int,
        ttl: float,
        expects: str,
        takeover: bool,
        skew: float | None,
        floor: int,
        info: dict[str, object],
        lost: tuple[int, str] | None,
    ) -> None:
        role = name + self.tail
        there = self.row(role).revision
        expected = {
            "nothing": None,
            "what is there": there,
            "what was seen": self.seen.get(role),
            "something wrong": there._replace(beat=there.beat + 1),
        }[expects]
        request = Claim(role, holder, beat, ttl, expected, takeover, skew, floor, info, lost)
        self.compare(request, *self.ask_both(lambda store: store.claim(request, 10)))

    @rule(
        batch=st.lists(
            st.tuples(
                roles,
                st.none() | holders,
                st.integers(-1, 1),
                st.integers(-1, 2),
                ttls,
                st.none() | infos,
                texts,
            ),
            unique_by=lambda item: item[0],
        )
    )
    def renew(
        self,
        batch: list[tuple[str, str | None, int, int, float, dict[str, object] | None, str | None]],
    ) -> None:
        requests = []
        for name, other, off, ahead, ttl, info, text in batch:
            row = self.row(name + self.tail)
            off = off if other else 0  # most of them should be right
            requests.append(
                Renew(
                    row.role,
                    other or row.holder or "a",
                    row.token + off,
                    row.beat + ahead,
                    ttl,
                    info,
                    text if self.keeps else None,
                )
            )
        tested, oracle = self.ask_both(lambda store: store.renew(requests, 10))
        assert len(tested) == len(requests)
        for item, first, second in zip(requests, tested, oracle, strict=True):
            self.compare(item, first, second)

    @rule(
        name=roles,
        other=st.none() | holders,
        off=st.sampled_from((0, 0, 0, 1, -1)),
        ahead=st.integers(0, 2),
        linger=st.sampled_from((0.0, 0.0, 1.0)),
        to=successors,
        by=st.sampled_from(("", "ann")),
        text=texts,
    )
    def release(
        self,
        name: str,
        other: str | None,
        off: int,
        ahead: int,
        linger: float,
        to: str | None,
        by: str,
        text: str | None,
    ) -> None:
        row = self.row(name + self.tail)
        request = Release(
            row.role,
            other or row.holder or "a",
            row.token + off,
            row.beat + ahead,
            linger,
            to,
            by=by,
            keep=text if self.keeps else None,
        )
        self.compare(request, *self.ask_both(lambda store: store.release(request, 10)))

    @rule(
        name=roles,
        expects=st.sampled_from(
            ("what is there", "what is there", "what was seen", "another beat")
        ),
        holder=st.sampled_from((REVOKED, PAUSED)),
        ahead=st.integers(1, 3),
        ttl=ttls,
        info=infos,
        by=st.sampled_from(("", "ann")),
    )
    def override(
        self,
        name: str,
        expects: str,
        holder: str,
        ahead: int,
        ttl: float,
        info: dict[str, object],
        by: str,
    ) -> None:
        if not isinstance(self.tested, Overridable):
            return
        role = name + self.tail
        there = self.row(role).revision
        expected = {
            "what is there": there,
            "what was seen": self.seen.get(role, there),
            "another beat": there._replace(beat=there.beat + 1),
        }[expects]
        request = Override(role, expected, holder, there.beat + ahead, ttl, info, by=by)
        self.compare(request, *self.ask_both(lambda store: store.override(request, 10)))

    @rule(seconds=st.sampled_from((0.1, 0.5, 1.0, 2.5, 3.0, 31.0)))
    def time_passes(self, seconds: float) -> None:
        if self.clock is not None:
            self.clock.now += seconds

    @invariant()
    def the_rows_are_the_same(self) -> None:
        roles = [name + self.tail for name in ROLES]
        tested, oracle = self.ask_both(lambda store: store.read(roles, 10))
        assert sorted(map(repr, map(self.view, tested))) == sorted(
            map(repr, map(self.view, oracle))
        )

    @invariant()
    def they_remember_the_same(self) -> None:
        roles = [name + self.tail for name in ROLES]
        tested, oracle = self.ask_both(lambda store: store.past(roles, 10))
        assert sorted(map(self.comparable, tested)) == sorted(map(self.comparable, oracle))

    @invariant()
    def they_keep_the_same(self) -> None:
        if not isinstance(self.tested, HasKept):
            return
        roles = [name + self.tail for name in ROLES]

        async def texts(store: Store) -> list[object]:
            assert isinstance(store, HasKept)
            return [await store.kept(role, 10) for role in roles]

        tested, oracle = self.ask_both(texts)
        assert tested == oracle

    @staticmethod
    def comparable(term: PastTerm) -> tuple[object, ...]:
        """Without the times: each store has its own wall clock."""
        over = term.until is not None
        return (
            term.role,
            -term.token,
            term.holder,
            over,
            term.reason,
            term.by,
            repr(sorted(term.info.items())),
        )


def run_on_server(kind: type[Any], url: str, *, examples: int, mutant: bool = False) -> None:
    """Hold the store `kind` on `url` in lockstep with the memory store.

    The clock of a server cannot be set: what `remaining` decides is left out here, and tested by
    itself. The steps for a `mutant` are the same in each run, and not made shorter once they fail.
    """

    class Patient(kind):  # type: ignore[misc] # a class that is given
        async def claim(self, claim: Claim, timeout: float) -> Result:
            skew = None if claim.skew is None else claim.skew + 3600
            return await super().claim(replace(claim, skew=skew), timeout)

    class OnServer(Lockstep):
        loop = asyncio.new_event_loop()
        tested = Patient(url)

    try:
        run_state_machine_as_test(
            OnServer,
            settings=settings(
                max_examples=examples,
                stateful_step_count=20,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                derandomize=mutant,
                phases=(Phase.generate,) if mutant else (Phase.generate, Phase.shrink),
                report_multiple_bugs=not mutant,
            ),
        )
    finally:
        OnServer.loop.run_until_complete(OnServer.tested.close())
        OnServer.loop.close()
