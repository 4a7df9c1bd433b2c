"""`once`: each tick of a job is run by one caller, and its result is kept."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import coord
from coord import AsyncCoordinator, Coordinator, Once
from coord.api.once import OnceCall
from coord.core.kept import MAX_KEEP
from coord.core.operations import Claim
from coord.stores import urls
from coord.testing import Fault, FaultyStore
from tests.support.waits import eventually

TWO = "2026-11-30T02:00"


pytestmark = pytest.mark.on_memory


@pytest.fixture
def store(url: str) -> FaultyStore:
    return FaultyStore(urls.open_url(url))


@pytest.fixture
def c(store: FaultyStore, url: str) -> Any:
    timeout = 1.0 if url.startswith("memory:") else 10.0
    with Coordinator(store=store, timeout=timeout) as coordinator:
        yield coordinator


def test_a_tick_is_run_once_and_its_result_is_kept(c: Coordinator) -> None:
    calls: list[int] = []

    def report(number: int) -> dict[str, Any]:
        calls.append(number)
        term = coord.require_term()
        assert (term.role, term.token) == ("report", 1)
        return {"rows": number, "list": (1, 2)}

    assert c.once_done("report", TWO) is None
    before = time.time()
    first = c.once("report", TWO, report, 7)
    assert (first.result, first.ran, first.token) == ({"rows": 7, "list": [1, 2]}, True, 1)
    assert before <= first.at <= time.time()
    again = c.once("report", TWO, report, 8)
    assert again == Once(first.result, False, 1, first.at) == c.once_done("report", TWO)
    assert calls == [7]
    assert c.leader("report") is None
    assert c.history("report")[0].token == 1  # the second call claimed nothing


def test_all_names_of_a_tick_are_one(c: Coordinator) -> None:
    berlin = timezone(timedelta(hours=1))
    names = [
        TWO,
        "2026-11-30T02:00:00Z",
        "2026-11-30T03:00:00+01:00",
        datetime(2026, 11, 30, 3, tzinfo=berlin),
        coord.tick(every=3600, at=datetime(2026, 11, 30, 1, 53, tzinfo=timezone.utc)),
        coord.tick(every=3600, at=datetime(2026, 11, 30, 2, 29, tzinfo=timezone.utc)),
    ]
    assert [c.once("report", name, lambda: 1).ran for name in names] == [True] + [False] * 5
    assert c.once("report", "2026-11-30T02:00:00.5", lambda: 1).ran


def test_threads_that_call_at_the_same_time_run_it_once(
    two: tuple[Coordinator, Coordinator],
) -> None:
    ran: list[int] = []
    outcomes: list[Once] = []

    def work() -> str:
        ran.append(1)
        time.sleep(0.05)
        return "done"

    def call(coordinator: Coordinator) -> None:
        outcomes.append(coordinator.once("r", 1, work, ttl=5))

    threads = [threading.Thread(target=call, args=(two[n % 2],)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ran == [1]
    assert [outcome.result for outcome in outcomes] == ["done"] * 6
    assert sum(outcome.ran for outcome in outcomes) == 1


def test_a_run_that_raises_is_repeated(c: Coordinator) -> None:
    with pytest.raises(ZeroDivisionError):
        c.once("r", 1, lambda: 1 // 0)
    assert c.once_done("r", 1) is None
    assert c.leader("r") is None
    assert c.once("r", 1, lambda: "well") == Once("well", True, 2, c.once_done("r", 1).at)  # type: ignore[union-attr]


def test_without_retry_a_run_that_began_is_left_for_people(c: Coordinator) -> None:
    with pytest.raises(ZeroDivisionError):
        c.once("r", 1, lambda: 1 // 0, retry=False)
    assert c.once_done("r", 1) is None
    ran: list[int] = []
    with pytest.raises(coord.TickUnfinished, match=r"tick 1 of 'r': a run began under token 1"):
        c.once("r", 1, lambda: ran.append(1), retry=False)
    assert not ran
    assert c.leader("r") is None
    assert c.once("r", 2, lambda: "another tick", retry=False).ran
    assert c.once("r", 1, lambda: "again", retry=True).result == "again"
    assert c.once("r", 1, lambda: ran.append(1), retry=False).result == "again"
    assert not ran


def test_the_begin_is_recorded_before_the_run(c: Coordinator, store: FaultyStore) -> None:
    def look() -> Any:
        kept = c.portal.call(lambda: store.inner.kept("r", 10))  # type: ignore[attr-defined]
        return json.loads(kept.text)["ticks"]["runs"]

    (during,) = c.once("r", 1, look, retry=False).result
    assert (during["tick"], during["token"], during["begun"]) == (1, 1, True)
    assert "begun" not in look()[0]


def test_a_begin_that_is_not_recorded_is_not_run(c: Coordinator, store: FaultyStore) -> None:
    ran: list[int] = []
    store.fail("renew", Fault.NOT_DONE, None)
    store.slow("claim")
    with pytest.raises((coord.LeadershipLost, coord.StaleToken, coord.OutcomeUnknown)):
        c.once("r", 1, lambda: ran.append(1), retry=False, ttl=1)
    assert not ran
    store.heal()
    assert c.once("r", 1, lambda: ran.append(1), retry=False).ran
    assert ran == [1]


def test_the_record_travels_with_the_release(c: Coordinator, store: FaultyStore) -> None:
    c.once("r", 1, lambda: 1)
    store.calls.clear()
    c.once("r", 2, lambda: 1)
    assert store.calls == ["read", "claim", "read", "release"]
    store.calls.clear()
    c.once("r", 2, lambda: 1)
    assert store.calls == ["read"]


@pytest.mark.parametrize("fault", [Fault.UNKNOWN_DONE, Fault.UNKNOWN_NOT_DONE, Fault.NOT_DONE])
def test_a_record_without_an_answer_is_sent_again(
    c: Coordinator, store: FaultyStore, fault: Fault
) -> None:
    store.fail("release", fault, 2)
    assert c.once("r", 1, lambda: "x", ttl=5).ran
    done = c.once_done("r", 1)
    assert done is not None
    assert done.result == "x"


def test_a_record_that_cannot_be_written_is_an_error_and_the_tick_is_run_again(
    c: Coordinator, store: FaultyStore
) -> None:
    store.fail("release", Fault.UNKNOWN_NOT_DONE, None)
    with pytest.raises(coord.OutcomeUnknown, match="under token 1 of 'r'"):
        c.once("r", 1, lambda: "x", ttl=0.5)
    store.heal()
    assert c.once("r", 1, lambda: "y", ttl=0.5).result == "y"


def test_a_run_that_lost_its_lease_records_nothing(c: Coordinator, store: FaultyStore) -> None:
    def taken() -> str:
        takeover = Claim("r", "other", 1, 0.2, takeover=True)
        c.portal.call(lambda: store.inner.claim(takeover, 10))
        return "too late"

    with pytest.raises((coord.LeadershipLost, coord.StaleToken)):
        c.once("r", 1, taken, ttl=1)
    assert c.once_done("r", 1) is None
    assert c.once("r", 1, lambda: "in time").result == "in time"


@pytest.mark.stores("memory")
def test_another_run_since_the_first_read_counts(c: Coordinator, store: FaultyStore) -> None:
    """The role is taken while somebody waits for it, and the tick is done when it is free."""
    ran: list[int] = []
    with c.leadership("r", ttl=5) as lead:
        assert lead.wait(5)
        waiting: list[Once] = []
        thread = threading.Thread(
            target=lambda: waiting.append(c.once("r", 1, lambda: ran.append(1), timeout=20))
        )
        thread.start()
        eventually(lambda: c.candidates("r"))
        runs = [{"tick": 1, "token": 1, "at": 5.0, "result": "by another"}]
        store.inner._kept["r"] = json.dumps({"ticks": {"runs": runs}})  # type: ignore[attr-defined]
    thread.join(20)
    assert waiting == [Once("by another", False, 1, 5.0)]
    assert not ran


def test_another_tick_is_waited_for(c: Coordinator) -> None:
    goes_on = threading.Event()
    thread = threading.Thread(target=lambda: c.once("r", 1, lambda: goes_on.wait(20) or True))
    thread.start()
    eventually(lambda: c.leader("r"))
    with pytest.raises(coord.AcquireTimeout):
        c.once("r", 2, lambda: 1, timeout=0.1)
    goes_on.set()
    assert c.once("r", 2, lambda: 2).token == 2
    thread.join(20)


def test_old_ticks_are_forgotten_and_never_run(c: Coordinator, store: FaultyStore) -> None:
    for number in range(5, 10):
        c.once("r", number, lambda: None, keep=3)
    for number in (3, 6):
        with pytest.raises(coord.TickTooOld, match="only ticks after 6 are kept"):
            c.once("r", number, lambda: None)
        with pytest.raises(coord.TickTooOld):
            c.once_done("r", number)
    assert not c.once("r", 7, lambda: None).ran
    # A tick between those that are kept is run, and goes when others come.
    kept = c.portal.call(lambda: store.inner.kept("r", 10))  # type: ignore[attr-defined]
    assert json.loads(kept.text)["ticks"]["below"] == 6


def test_the_results_of_all_ticks_fit(c: Coordinator) -> None:
    result = "x" * 4094
    for number in range(MAX_KEEP + 2):
        c.once("r", number, lambda: result)
    with c.leadership("r", ttl=5) as lead:
        assert lead.wait(5)
        lead.term.note("k", "x" * 65_000)
    assert c.once("r", MAX_KEEP + 2, lambda: result).ran
    assert c.notes("r")["k"] == "x" * 65_000


def test_notes_of_the_job_are_kept_beside_its_ticks(c: Coordinator) -> None:
    def job() -> int:
        coord.require_term().note("cursor", 5)
        return len(coord.require_term().notes())

    assert c.once("r", 1, job).result == 1
    assert c.notes("r") == {"cursor": 5}
    assert c.once("r", 1, job).result == 1


def test_within(c: Coordinator) -> None:
    now = datetime.now(timezone.utc)
    late = now - timedelta(seconds=100)
    with pytest.raises(coord.TickTooOld, match=r"10\d s late, more than within=60 allows"):
        c.once("r", late, lambda: 1, within=60)
    assert c.once("r", late, lambda: 1, within=600).ran
    assert not c.once("r", late, lambda: 1, within=60).ran  # it was run, however late this is
    assert c.once("r", now + timedelta(seconds=100), lambda: 1, within=0).ran


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"job": ""}, "invalid job"),
    ({"tick": 1.5}, "invalid tick 1.5: must be an int, a datetime with a time zone"),
    ({"tick": True}, "invalid tick True"),
    ({"tick": "tomorrow"}, "invalid tick 'tomorrow'"),
    ({"tick": ""}, "invalid tick ''"),
    ({"tick": datetime(2026, 1, 1)}, "invalid tick"),
    ({"tick": 2**60}, "must be from -9,007,199,254,740,992 to 9,007,199,254,740,992"),
    ({"tick": TWO}, "invalid tick '2026-11-30T02:00:00Z': must be an int, like the other"),
    ({"function": 3}, "invalid function 3"),
    ({"ttl": 0}, "invalid ttl 0"),
    ({"retry": "no"}, "invalid retry 'no': must be True or False"),
    ({"within": -1, "tick": TWO}, "invalid within -1"),
    ({"within": 5}, "invalid within 5: must be left out if the tick is an int"),
    ({"keep": 0}, "invalid keep 0: must be an int from 1 to 64"),
    ({"keep": 65}, "invalid keep 65"),
    ({"timeout": -1}, "invalid timeout -1"),
    ({"function": lambda: {1}}, "invalid result {1}: must be what JSON can hold"),
    ({"function": lambda: "x" * 4095}, "in at most 4,096 bytes; it has 4,097"),
    ({"function": asyncio.sleep}, "invalid function"),
]


@pytest.mark.stores("memory")
@pytest.mark.parametrize(("changed", "message"), INVALID)
def test_what_is_invalid(c: Coordinator, changed: dict[str, Any], message: str) -> None:
    c.once("r", 1, lambda: 1)
    settings: dict[str, Any] = {"job": "r", "tick": 2, "function": lambda: 1, **changed}
    job, tick, function = (settings.pop(name) for name in ("job", "tick", "function"))
    with pytest.raises(coord.BadArgument) as caught:
        c.once(job, tick, function, **settings)
    assert message in str(caught.value)
    assert c.leader("r") is None
    assert c.once_done("r", 2) is None


def test_a_job_that_calls_its_own_job_is_refused(c: Coordinator) -> None:
    with pytest.raises(coord.CoordError, match="would wait for its own end"):
        c.once("r", 1, lambda: c.once("r", 2, lambda: 1))
    assert c.once("r", 1, lambda: c.once("other", 1, lambda: 5).result).result == 5


@pytest.mark.stores("memory")
@pytest.mark.parametrize(
    "ticks", [{"runs": 3}, {"runs": [3]}, {"runs": [{"tick": 1}]}, {"below": []},
              {"runs": [{"tick": 1, "token": 1, "at": 1.0}], "below": TWO}],
)  # fmt: skip
def test_damaged_ticks_run_nothing(c: Coordinator, store: FaultyStore, ticks: Any) -> None:
    store.inner._kept["r"] = json.dumps({"ticks": ticks})  # type: ignore[attr-defined]
    with pytest.raises(coord.StoreRefused, match="role 'r' keeps are damaged"):
        c.once("r", 1, lambda: pytest.fail("it ran"))


def test_a_coroutine_function_on_its_own_loop() -> None:
    async def main() -> None:
        async with AsyncCoordinator("memory://") as c:

            async def work(value: int) -> int:
                await asyncio.sleep(0)
                assert coord.require_term().role == "r"
                return value

            done = await asyncio.gather(*(c.once("r", 1, work, n) for n in range(4)))
            assert sum(item.ran for item in done) == 1
            assert len({item.result for item in done}) == 1
            assert await c.once_done("r", 1) is not None
            assert (await c.once("r", 2, lambda: "plain")).result == "plain"

            begun = asyncio.Event()

            async def cancelled() -> None:
                begun.set()
                await asyncio.sleep(30)

            task = asyncio.ensure_future(c.once("r", 3, cancelled))
            await asyncio.wait_for(begun.wait(), 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await c.leader("r") is None
            assert await c.once_done("r", 3) is None

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize(
    ("every", "offset", "at", "expected"),
    [
        (3600, 0, 0, "1970-01-01T00:00"),
        (3600, 0, 1799.9, "1970-01-01T00:00"),
        (3600, 0, 1800, "1970-01-01T01:00"),
        (86400, 7200, datetime(2026, 11, 30, 13, 59, tzinfo=timezone.utc), "2026-11-30T02:00"),
        (86400, 7200, datetime(2026, 11, 30, 14, 0, tzinfo=timezone.utc), "2026-12-01T02:00"),
        (86400, -3600, 1_000_000, "1970-01-12T23:00"),
        (0.1, 0, 1_796_007_600.04999, "2026-11-30T03:00"),
        (900, 450, datetime(2026, 1, 1, 1, 7, 30, tzinfo=timezone(timedelta(hours=1))), "2026-01-01T00:07:30"),
    ],
)  # fmt: skip
def test_tick_is_the_nearest(every: float, offset: float, at: Any, expected: str) -> None:
    tick = coord.tick(every=every, offset=offset, at=at)
    assert tick == datetime.fromisoformat(expected).replace(tzinfo=timezone.utc)
    assert tick.tzinfo is timezone.utc


def test_tick_without_a_time_is_near_now() -> None:
    assert abs(coord.tick(every=10).timestamp() - time.time()) < 20


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: coord.tick(every=0), "every"),
        (lambda: coord.tick(every=60, offset="x"), "offset"),  # type: ignore[arg-type]
        (lambda: coord.tick(every=60, at=-5), "at"),
        (lambda: coord.tick(every=60, at=datetime(2026, 1, 1)), "at"),
    ],
)
def test_tick_refuses(call: Callable[[], object], argument: str) -> None:
    with pytest.raises(coord.BadArgument, match=f"invalid {argument}"):
        call()


def test_the_first_tick_of_a_new_file(tmp_path: Path) -> None:
    with Coordinator(f"sqlite:///{tmp_path}/coord.db") as c:
        assert c.once("r", 1, lambda: 1).ran
        assert not c.once("r", 1, lambda: 1).ran


def test_a_decorated_function_runs_once_for_each_tick(c: Coordinator) -> None:
    ran: list[Any] = []

    @coord.leader_only("report-{tenant}", coordinator=c, once_per="day")
    def report(tenant: str, day: str = TWO, *, rows: int = 0) -> list[Any]:
        ran.append((tenant, day))
        assert coord.require_term().role == f"report-{tenant}"
        return [tenant, rows]

    assert report("a", rows=3) == ["a", 3]
    assert report("a", TWO, rows=9) == report(day="2026-11-30T02:00Z", tenant="a") == ["a", 3]
    assert report("b") == ["b", 0]
    assert report("a", "2026-12-01", rows=5) == ["a", 5]
    assert ran == [("a", TWO), ("b", TWO), ("a", "2026-12-01")]
    assert c.once_done("report-a", TWO) is not None
    with pytest.raises(coord.BadArgument, match="invalid tick 'today'"):
        report("a", "today")


def test_a_decorated_method_and_coroutine_function(c: Coordinator) -> None:
    class Batches:
        @coord.leader_only("m", coordinator=c, once_per=lambda self, number: number // 10)
        def run(self, number: int) -> int:
            return number

    assert [Batches().run(number) for number in (11, 15, 20)] == [11, 11, 20]

    @coord.leader_only("a", coordinator=c, once_per="tick", retry=False)
    async def work(tick: int) -> int:
        await asyncio.sleep(0)
        if tick == 2:
            raise ZeroDivisionError
        return tick * 2

    async def main() -> list[int]:
        return list(await asyncio.gather(*(work(1) for _ in range(3))))

    assert asyncio.run(main()) == [2, 2, 2]
    with pytest.raises(ZeroDivisionError):
        asyncio.run(work(2))
    with pytest.raises(coord.TickUnfinished):
        asyncio.run(work(2))


def test_a_coroutine_that_is_cancelled_as_it_gets_the_role_gives_it_back(
    c: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, begin = threading.Event(), OnceCall.begin

    async def reporting(call: OnceCall) -> Once | None:
        try:
            return await begin(call)
        finally:
            begun.set()

    monkeypatch.setattr(OnceCall, "begin", reporting)

    @coord.leader_only("a", coordinator=c, once_per="tick")
    async def work(tick: int) -> int:
        raise AssertionError("it was cancelled before")

    async def main() -> None:
        task = asyncio.ensure_future(work(1))
        await asyncio.sleep(0)
        assert begun.wait(
            10
        )  # blocks this loop, so that it learns of the role and the cancel together
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    eventually(lambda: c.leader("a") is None)


def test_settings_that_do_not_go_with_once_per() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"once_per": "other"}, "invalid once_per 'other': must be a parameter of the function"),
        ({"otherwise": "wait"}, "must be left out with otherwise"),
        ({"scope": "call"}, "must be left out with otherwise, scope"),
        ({"at_least": 5, "scope": "call"}, "must be left out with otherwise"),
        ({"at_most": 5}, "must be left out with otherwise"),
        ({"slots": 3}, "must be left out with otherwise"),
        ({"retry": 1}, "invalid retry 1"),
    ]
    for settings, message in wrong:
        with pytest.raises(coord.BadArgument, match=message):
            coord.leader_only("r", **{"once_per": "tick", **settings})(lambda tick: 1)
