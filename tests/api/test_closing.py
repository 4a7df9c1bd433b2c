"""The end of a coordinator: it stays closed, from any thread or callback, and after any number of calls."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest

import coord
from coord import (
    AsyncCoordinator,
    Coordinator,
    CoordinatorClosed,
    LossReason,
    StoreUnavailable,
    Term,
)
from coord.core.lease import Lease
from coord.core.operations import Claim, Result
from coord.stores.memory import MemoryStore
from tests.support.waits import eventually, soon


def calls(c: Coordinator) -> list[Callable[[], object]]:
    """Everything that uses a coordinator."""
    lead = c.leadership("r", ttl=5)
    return [
        c.check,
        c.leaders,
        c.history,
        c.candidates,
        c.__enter__,
        lambda: c.leader("r"),
        lambda: c.unique_service("r"),
        lambda: c.unique_service("r", {"ttl": 5}),
        lambda: c.request_step_down("r"),
        lambda: c.request_transfer("r", "somebody"),
        lambda: next(c.watch_leader("r")),
        lambda: next(c.watch_leaders()),
        lead.start,
        lead.acquire,
        lead.__enter__,
        lambda: lead.run(lambda: None),
        coord.leader_only("r", coordinator=c)(lambda: None),
        coord.leader_only("r", coordinator=c, scope="call")(lambda: None),
    ]


@pytest.mark.parametrize("used", [True, False])
def test_a_closed_coordinator_refuses_every_call(url: str, used: bool) -> None:
    c = Coordinator(url)
    if used:
        assert c.leader("r") is None
    refused = calls(c)
    c.close()
    c.close()
    for call in refused:
        with pytest.raises(CoordinatorClosed, match="is closed; create a new one"):
            call()
    assert coord.health(c).status is coord.HealthStatus.IDLE


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "heartbeat": ({"role": "r", "ttl": 5, "load": 0},),
    "once": ("job", 1, int),
    "once_done": ("job", 1),
    "request_transfer": ("r", "somebody"),
    "share": ("g", 2),
    "slots": ("r", 2),
}
"""The arguments of calls that take other ones than a role."""
WITHOUT_ROLE = {
    *("candidates", "check", "history", "leaders", "retire", "services", "watch_leaders"),
    *("available_services", "bad_records", "healthy_services"),
    *("purge_stale_services", "stale_services"),
}
USABLE = {
    *("announcements", "close", "coordinator", "inner", "portal", "store", "table", "url"),
    *("after_fork", "host", "publisher", "records", "session"),  # internal ones of registries
}
"""What works after the end of a coordinator: it sends nothing."""


def public_calls(thing: object) -> dict[str, Callable[[], Any]]:
    """Return every public call of an object, by its name. A context manager is entered."""

    def call(name: str) -> Any:
        value = getattr(thing, name)  # a property such as `services` raises here
        arguments = ARGUMENTS.get(name, () if name in WITHOUT_ROLE else ("r",))
        result = value(*arguments, **({"unused": 1} if name == "retire" else {}))
        if name == "releasing":
            is_async = hasattr(result, "__aenter__")
            return result.__aenter__() if is_async else result.__enter__()
        return result

    names = {name for name in dir(thing) if not name.startswith("_")} - USABLE
    return {name: functools.partial(call, name) for name in sorted(names)}


CLOSED = r"cannot .*: (it|the coordinator of memory://) is closed; create a new one"


@pytest.mark.parametrize("used", [True, False])
def test_all_public_calls_of_a_closed_coordinator_raise_the_same_error(used: bool) -> None:
    """Also those that only return an object: it could do nothing."""
    c = Coordinator("memory://")
    registry = coord.ServiceRegistry(c, publish=True)
    if used:
        assert c.leaders() == []
    c.close()
    calls = public_calls(c)
    assert len(calls) > 20
    for name, call in [*calls.items(), *public_calls(registry).items()]:
        with pytest.raises(CoordinatorClosed, match=CLOSED):
            pytest.fail(f"{name} returned {call()!r}")
    c.close()
    registry.close()
    assert "memory://" in f"{c!r} {registry!r} {c.url}"


def test_all_public_calls_of_a_closed_async_coordinator_raise_the_same_error() -> None:
    async def main() -> None:
        c = AsyncCoordinator("memory://")
        registry = coord.AsyncServiceRegistry(c, publish=True)
        assert await c.leaders() == []
        await c.close()
        for name, call in [*public_calls(c).items(), *public_calls(registry).items()]:
            with pytest.raises(CoordinatorClosed, match=CLOSED):
                pytest.fail(f"{name} returned {await call()!r}")
        await c.close()
        await registry.close()

    asyncio.run(main())


def candidates_of(c: Any, *, work: Callable[..., Any]) -> dict[str, Any]:
    share = c.share("g", 2)
    share.work(work)
    return {"leadership": c.leadership("r"), "slots": c.slots("s", 2), "share": share}


OF_CANDIDATES: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("on_elected", "on_info", "on_lost", "on_new_leader", "work"), (print,)),
    "run": (print,),
    "transfer": ("somebody",),
    "update": ({},),
}


def public_methods(thing: object) -> set[str]:
    names = {name for name in dir(thing) if not name.startswith("_")}
    return {name for name in names if callable(getattr(type(thing), name, None))}


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("kind", ["leadership", "slots", "share"])
def test_the_methods_of_candidates_of_a_closed_coordinator_raise_alike(
    kind: str, started: bool
) -> None:
    """The sync and the async class: each either returns the same, or raises the same error."""
    sync, asynchronous = dict[str, object](), dict[str, object]()

    async def coroutine(*_: object) -> None:
        pass

    c = Coordinator("memory://")
    candidate = candidates_of(c, work=print)[kind]
    if started:
        candidate.start()
    c.close()
    names = public_methods(candidate) - {"work"}
    for name in (*names, "__enter__"):
        try:
            sync[name] = getattr(candidate, name)(*OF_CANDIDATES.get(name, ()))
        except coord.CoordError as err:
            sync[name] = type(err)

    async def main() -> None:
        c = AsyncCoordinator("memory://")
        candidate = candidates_of(c, work=coroutine)[kind]
        if started:
            await candidate.start()
        await c.close()
        assert public_methods(candidate) - {"work"} == names
        for name in (*names, "__aenter__"):
            arguments = (coroutine,) if name == "run" else OF_CANDIDATES.get(name, ())
            try:
                result = getattr(candidate, name)(*arguments)
                if inspect.isawaitable(result):
                    result = await asyncio.wait_for(result, 20)
            except coord.CoordError as err:
                result = type(err)
            asynchronous[name.replace("aenter", "enter")] = result

    asyncio.run(main())
    assert asynchronous == sync
    assert sync["start"] is sync["__enter__"] is CoordinatorClosed
    closed = {name for name, result in sync.items() if result is CoordinatorClosed}
    if kind == "share":
        assert closed >= {"wait_settled"}
    else:
        assert closed >= {"acquire", "run", "step_down", "transfer", "update", "wait"}


def test_a_closed_async_coordinator_refuses_every_call(url: str) -> None:
    async def main() -> None:
        c = AsyncCoordinator(url)
        lead = c.leadership("r", ttl=5)
        assert await lead.acquire() is not None
        await asyncio.gather(c.close(), c.close(), c.close())
        await c.close()
        assert not lead.started

        async def first(items: Any) -> object:
            async for item in items:
                return item
            raise AssertionError("it ended")

        for call in (
            c.check, c.leaders, c.history, c.candidates, lead.start, lead.acquire,
            lambda: c.leader("r"), lambda: c.unique_service("r", {"ttl": 5}),
            lambda: c.request_step_down("r"), lambda: c.request_transfer("r", "x"),
            lambda: first(c.watch_leader("r")), lambda: first(c.watch_leaders()),
        ):  # fmt: skip
            with pytest.raises(CoordinatorClosed, match="is closed; create a new one"):
                await call()

    asyncio.run(main())


@pytest.mark.parametrize("_repeated", range(5))
def test_many_threads_close_it_during_calls_of_many_others(url: str, _repeated: int) -> None:
    c = Coordinator(url)
    waiting, lead = c.leadership("busy", ttl=5), c.leadership("r", ttl=5)
    assert c.leadership("busy", ttl=5).acquire() is not None
    waiting.start()
    errors, answers, began = list[BaseException](), list[bool](), threading.Semaphore(0)

    def repeat(call: Callable[[], object]) -> None:
        began.release()
        try:
            while True:
                with contextlib.suppress(coord.LeadershipLost):  # before the job began
                    call()
        except CoordinatorClosed:
            return
        except BaseException as err:
            errors.append(err)

    def watch() -> None:
        for _ in c.watch_leader("busy"):
            pass
        assert c.session.closing

    work: list[Callable[[], object]] = [
        lambda: c.leader("r"),
        c.leaders,
        lambda: (lead.acquire(timeout=5), lead.release()),
        lambda: c.unique_service("u", {"ttl": 5}),
        coord.leader_only("g", coordinator=c, scope="call")(lambda: None),
        watch,
    ]
    threads = [threading.Thread(target=repeat, args=(call,)) for call in work]
    threads.append(threading.Thread(target=lambda: answers.append(waiting.wait())))
    for thread in threads:
        thread.start()
    for _ in work:
        assert began.acquire(timeout=10)
    closers = [threading.Thread(target=c.close) for _ in range(3)]
    for thread in closers:
        thread.start()
    for thread in (*closers, *threads):
        thread.join(30)
        assert not thread.is_alive()
    assert errors == []
    assert answers == [False]
    assert not c.portal.running
    with Coordinator(url) as other:
        assert other.leaders() == []  # everything was released


@pytest.mark.parametrize("what", ["on_elected", "on_lost", "job"])
def test_closing_it_in_a_callback_or_job_does_not_wait_for_itself(url: str, what: str) -> None:
    c, seconds = Coordinator(url), list[float]()

    def close(*_: object) -> None:
        began = time.monotonic()
        c.close()
        seconds.append(time.monotonic() - began)

    if what == "job":
        coord.leader_only("r", coordinator=c, ttl=60)(close)()
    else:
        lead = c.leadership("r", ttl=60, **{what: close})
        lead.start()
        if what == "on_lost":
            assert lead.wait(10)
        if what == "on_lost":
            with contextlib.suppress(CoordinatorClosed):
                lead.step_down()
    eventually(lambda: seconds and not c.portal.running)
    assert seconds[0] < 20  # the drain timeout is 60 s
    c.close()
    with pytest.raises(CoordinatorClosed):
        c.leaders()
    with Coordinator(url) as other:
        eventually(lambda: other.leader("r") is None)


def test_closing_it_in_an_async_callback_does_not_wait_for_itself(url: str) -> None:
    async def main() -> None:
        c, reasons = AsyncCoordinator(url), list[LossReason]()

        async def on_elected(_: Term) -> None:
            await c.close()

        lead = c.leadership("r", ttl=60, on_elected=on_elected)
        lead.on_lost(lambda _, reason: reasons.append(reason))
        await lead.start()
        await soon(lambda: reasons == [LossReason.RELEASED])
        await asyncio.wait_for(c.close(), 20)
        assert not lead.started

    asyncio.run(main())


@pytest.mark.parametrize("ended", [False, True])
def test_an_interrupted_close_can_be_repeated(url: str, ended: bool) -> None:
    c, go_on, draining = Coordinator(url), threading.Event(), threading.Event()

    def on_lost(_: Term, __: LossReason) -> None:
        draining.set()
        go_on.wait(30)

    lead = c.leadership("r", ttl=5, drain_timeout=60, on_lost=on_lost)
    assert lead.acquire() is not None

    def interrupt() -> None:
        draining.wait(30)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        c.close()
    thread.join(10)
    with pytest.raises(CoordinatorClosed):
        c.leaders()
    go_on.set()
    if ended:
        eventually(lambda: c.session.closed)
    c.close()
    assert not c.portal.running


@pytest.mark.stores("memory", "sqlite")  # Python rightly warns of sockets that nobody closed
def test_a_second_event_loop_gets_a_clear_error(url: str) -> None:
    _use_in_two_event_loops(url)
    eventually(lambda: not sqlite_threads())


def _use_in_two_event_loops(url: str) -> None:
    c = AsyncCoordinator(url)
    lead = c.leadership("r", ttl=5)

    async def cut_short() -> None:
        other = AsyncCoordinator(url)
        assert await other.leadership("r", ttl=5).acquire() is not None
        await lead.start()
        await asyncio.sleep(0.2)  # it waits, and is announced
        raise SystemExit

    with pytest.raises(SystemExit):
        asyncio.run(cut_short())

    async def go_on() -> None:
        message = r"event loop in which it was first used, which has ended; create an Async"
        for call in (lead.start, lead.acquire, c.leaders, lambda: c.unique_service("r")):
            with pytest.raises(CoordinatorClosed, match=message):
                await call()
        await lead.stop()
        await c.close()
        await c.close()
        with pytest.raises(CoordinatorClosed, match="closed"):
            await c.leaders()

    asyncio.run(go_on())


def test_two_running_loops_cannot_share_one(url: str) -> None:
    c = AsyncCoordinator(url)

    async def elsewhere() -> None:
        with pytest.raises(CoordinatorClosed, match="which is another one"):
            await c.leaders()
        with pytest.raises(CoordinatorClosed, match="close it there"):
            await c.close()

    async def main() -> None:
        await c.leaders()
        await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
        await c.leaders()
        await c.close()

    asyncio.run(main())


def sqlite_threads() -> list[str]:
    gc.collect()  # of the coordinator that was dropped
    return [item.name for item in threading.enumerate() if item.name.startswith("coord sqlite")]


@pytest.fixture
def nothing_left() -> Iterator[None]:
    def resources() -> tuple[int, int]:
        gc.collect()
        names = [item.name for item in threading.enumerate() if item.name != "coord spare"]
        return len([name for name in names if name.startswith("coord")]), len(os.listdir(FILES))

    before = resources()
    yield
    eventually(lambda: resources() <= before, "threads and files are left")


FILES = "/proc/self/fd" if os.path.exists("/proc/self/fd") else "/dev/fd"


@pytest.mark.usefixtures("nothing_left")
def test_dropped_coordinators_leave_no_thread_and_no_file(url: str) -> None:
    for _ in range(20):
        assert coord.connect(url).leader("nobody") is None
    for number in range(20):
        lead = coord.connect(url).leadership(f"r{number}", ttl=5)
        assert lead.acquire() is not None
        lead.release()
    with contextlib.suppress(StopIteration):
        next(coord.connect(url).watch_leader("r"))
    del lead


@pytest.mark.usefixtures("nothing_left")
# Not on etcd: aiohttp warns of each session that nobody closed.
@pytest.mark.stores("memory", "sqlite", "rethinkdb", "postgresql", "redis")
def test_dropped_async_coordinators_leave_no_thread_and_no_file(url: str) -> None:
    async def main() -> None:
        for number in range(20):
            c = AsyncCoordinator(url)
            lead = c.leadership(f"r{number}", ttl=5)
            assert await lead.acquire() is not None
            assert await c.leader(f"r{number}") is not None
            await lead.release()
        del c, lead
        await asyncio.sleep(0.7)  # the task that detects suspend has ended

    asyncio.run(main())


def test_what_leads_goes_on_when_nobody_refers_to_it(url: str) -> None:
    c = Coordinator(url)
    lead, reference = c.leadership("r", ttl=0.6), weakref.ref(c)
    assert lead.acquire() is not None
    elector = lead.inner.elector
    assert elector is not None
    del c, lead
    gc.collect()
    time.sleep(1.2)  # two ttls
    assert elector.term is not None
    assert elector.term.held
    still = reference()
    assert still is not None
    still.close()
    del still, elector
    gc.collect()
    assert reference() is None


def test_an_iteration_keeps_its_coordinator(url: str) -> None:
    changes = coord.connect(url).watch_leader("r")
    assert next(changes) is None
    gc.collect()
    with Coordinator(url) as c, c.leadership("r", ttl=5):
        assert next(changes) is not None
    changes.close()  # type: ignore[attr-defined]


def test_a_claim_of_unique_service_is_not_released_when_its_coordinator_is_dropped(
    url: str,
) -> None:
    """Its caller may rely for a ttl on what it was told."""
    with Coordinator(url) as other:
        record = Coordinator(url).unique_service("r", {"ttl": 30})
        assert record is not None
        assert record["mine"]
        gc.collect()
        time.sleep(0.3)
        lease = other.leader("r")
        assert lease is not None
        assert lease.holder == record["holder"]


class ClosesMeanwhile(MemoryStore):
    """A store that is closed while requests wait, as a server's connections are."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting, self.was_closed = asyncio.Event(), asyncio.Event()
        self.late: list[str] = []

    async def _wait(self, request: str) -> None:
        if self.was_closed.is_set():
            self.late.append(request)
        self.waiting.set()
        await self.was_closed.wait()
        raise StoreUnavailable("the store was closed")

    async def open(self, timeout: float) -> None:
        await self._wait("open")

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        await self._wait("read")
        return []

    async def close(self) -> None:
        self.was_closed.set()
        await asyncio.sleep(0)


@pytest.mark.parametrize("call", ["check", "leaders", "pause", "evict"])
def test_a_call_that_is_under_way_sends_nothing_to_a_closed_store(call: str) -> None:
    """A server's store would connect again, and nobody would close that connection."""

    async def main() -> None:
        store = ClosesMeanwhile()
        c = AsyncCoordinator(store=store)
        arguments = ["r"] if call in ("pause", "evict") else []
        task = asyncio.ensure_future(getattr(c, call)(*arguments))
        await store.waiting.wait()
        await c.close()
        with pytest.raises(CoordinatorClosed):
            await task
        assert store.late == []

    asyncio.run(main())


def test_who_joins_a_group_while_the_coordinator_closes_is_no_member() -> None:
    class Slow(MemoryStore):
        async def claim(self, claim: Claim, timeout: float) -> Result:
            closing.append(asyncio.ensure_future(c.close()))
            await asyncio.sleep(0)
            return await super().claim(claim, timeout)

    closing: list[asyncio.Future[None]] = []

    async def main() -> None:
        nonlocal c
        c = AsyncCoordinator(store=Slow())
        shares = c.share("g", 2)
        with pytest.raises(CoordinatorClosed):
            await shares.start()
        await asyncio.gather(*closing)
        assert shares.engine is None
        assert not c.session.members

    c: AsyncCoordinator
    asyncio.run(main())


def test_services_are_watched_until_the_coordinator_is_closed() -> None:
    async def main() -> None:
        c = AsyncCoordinator("memory://")
        closing = asyncio.ensure_future(c.close())
        async for _ in c.services.watch_services("r"):
            raise AssertionError("there are no services")
        await closing

    async def within_half_a_minute() -> None:
        await asyncio.wait_for(main(), 30)

    asyncio.run(within_half_a_minute())
