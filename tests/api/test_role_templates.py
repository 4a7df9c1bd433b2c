"""`@leader_only` with a role that depends on the arguments, and with slots."""

from __future__ import annotations

import asyncio
import datetime
import enum
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import coord
from coord import Coordinator, TooManyRoles, leader_only
from coord.api.guarded_calls import GuardedCalls
from coord.core.role_template import RoleTemplate
from coord.stores.memory import MemoryStore
from tests.support.waits import eventually


class Color(enum.Enum):
    RED = "red"


pytestmark = pytest.mark.on_memory


@pytest.fixture
def c(url: str) -> Iterator[Coordinator]:
    with Coordinator(url) as coordinator:
        yield coordinator


def roles(c: Coordinator) -> set[str]:
    return {lease.role for lease in c.leaders()}


def test_each_value_has_a_role_of_its_own(c: Coordinator) -> None:
    values = []

    @leader_only("report-{tenant}", coordinator=c)
    def report(day: int, tenant: str = "all") -> str:
        values.append(coord.require_term().role)
        return f"{tenant} {day}"

    assert report(1) == "all 1"
    assert report(1, "a") == "a 1"
    assert report(day=2, tenant="a/b") == "a/b 2"
    assert values == ["report-all", "report-a", "report-a%2Fb"]
    assert roles(c) == set()  # scope "call"


def test_two_calls_for_different_values_run_at_the_same_time(c: Coordinator, url: str) -> None:
    other = Coordinator(url)
    inside = threading.Barrier(2)

    @leader_only("import-{tenant}", coordinator=c)
    def first(tenant: str) -> Any:
        inside.wait(20)
        with pytest.raises(coord.NotLeader):
            second(tenant)
        return second("b")

    @leader_only("import-{tenant}", coordinator=other, otherwise="raise")
    def second(tenant: str) -> str:
        return tenant

    thread = threading.Thread(target=lambda: inside.wait(20))
    thread.start()
    assert first("a") == "b"
    thread.join()
    other.close()


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("plain-text_1.2", "plain-text_1.2"),
        ("100%/#\n", "100%25%2F%23%0A"),
        ("ü", "ü"),
        (7, "7"),
        (-7, "-7"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (datetime.date(2026, 11, 30), "2026-11-30"),
        (Color.RED, "red"),
    ],
)
def test_values_are_encoded(value: object, part: str) -> None:
    def job(x: object) -> None: ...

    assert RoleTemplate("a-{x}-b", job).role((value,), {}) == f"a-{part}-b"


def test_values_that_differ_make_roles_that_differ() -> None:
    def job(x: str, y: str) -> None: ...

    template = RoleTemplate("{x}/{y}", job)
    pairs = [(x, y) for x in ("a", "a/b", "a%2Fb", "", "#", "%23") for y in ("c", "b/c", "%2F")]
    assert len({template.role(pair, {}) for pair in pairs}) == len(pairs)


TEXTS = st.text("ab-xü%#/7 A", max_size=4)


@given(
    st.sampled_from(
        [
            "{x}-{y}",
            "{x}/{y}",
            "r{x}-and-{y}.{z}",
            "{x}ü{y}",
            "{x}7x{y}z{x}",
            "{x}a%/{y}b",
            "{x}A-{y}",
        ]
    ),
    st.tuples(TEXTS, TEXTS, TEXTS),
    st.tuples(TEXTS, TEXTS, TEXTS),
)
@example("{x}-{y}", ("x-y", "z", ""), ("x", "y-z", ""))
@example("{x}ü{y}", ("ü", "", ""), ("", "ü", ""))
@example("{x}/{y}", ("%2F", "", ""), ("/", "", ""))
@settings(max_examples=60, deadline=None)
def test_other_texts_make_another_role(
    template: str, first: tuple[str, str, str], two: tuple[str, str, str]
) -> None:
    def job(x: str, y: str, z: str) -> None: ...

    if "{z}" not in template:
        first, two = (*first[:2], ""), (*two[:2], "")
    assume(first != two)
    # Without its last value, a role may be the name of the row of a group, which is refused.
    makes = RoleTemplate(f"role {template}.", job)
    assert makes.role(first, {}) != makes.role(two, {})


def test_only_what_separates_a_value_is_encoded_in_it() -> None:
    def job(x: str, y: str) -> None: ...

    for template, role in (
        ("{x}-{y}", "a%2Db.c-d-e"),
        ("r.{x} on {y}-", "r.a-b.c on d-e-"),
        ("{x}-/{y}", "a-b.c-/d-e"),
    ):
        assert RoleTemplate(template, job).role(("a-b.c", "d-e"), {}) == role


@pytest.mark.parametrize("template", ["{x}{y}", "job-{x}7{y}", "{x}%A{y}", "{x}-{x}{y}"])
def test_values_that_nothing_separates_are_refused_when_decorated(template: str) -> None:
    with pytest.raises(coord.BadArgument, match="must have text between two names"):

        @leader_only(template)
        def job(x: str, y: str) -> None: ...


@pytest.mark.parametrize("template", ["job-{x}/", "job-{x}#"])
def test_a_template_of_rows_of_groups_is_refused_when_decorated(template: str) -> None:
    with pytest.raises(coord.BadArgument, match="must not end with"):

        @leader_only(template)
        def job(x: str) -> None: ...


def test_an_empty_value_makes_no_row_of_a_group() -> None:
    def job(x: str) -> None: ...

    with pytest.raises(coord.BadArgument, match="invalid role 'jobs/': must not end with"):
        RoleTemplate("jobs/{x}", job).role(("",), {})


@pytest.mark.parametrize("value", [None, True, 1.5, b"x", [1], object()])
def test_other_values_are_refused_by_the_call(c: Coordinator, value: object) -> None:
    @leader_only("job-{x}", coordinator=c)
    def job(x: object) -> None:
        raise AssertionError("it must not run")

    with pytest.raises(coord.BadArgument, match=r"x .*must be a string"):
        job(value)
    with pytest.raises(coord.BadArgument, match="role"):
        job("x" * 200)
    with pytest.raises(TypeError):
        job()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "role",
    [
        "job-{y}",
        "job-{}",
        "job-{0}",
        "job-{x.y}",
        "job-{x[0]}",
        "job-{x!r}",
        "job-{x:>5}",
        "job-{x",
        "job-x}",
        "job-{args}",
        lambda y: f"job-{y}",
    ],
)
def test_a_wrong_template_is_refused_when_it_is_decorated(role: Any) -> None:
    with pytest.raises(coord.BadArgument, match="role"):

        @leader_only(role)
        def job(x: str, *args: str, **more: str) -> None: ...


def test_the_role_may_be_a_lambda_of_some_arguments(c: Coordinator) -> None:
    @leader_only(lambda tenant: f"report-{tenant.lower()}", coordinator=c)
    async def report(day: int, tenant: str) -> str:
        return coord.require_term().role

    assert asyncio.run(report(3, "ABC")) == "report-abc"

    @leader_only(lambda tenant: 7, coordinator=c)  # type: ignore[arg-type, return-value]
    def wrong(tenant: str) -> None: ...

    with pytest.raises(coord.BadArgument, match="role 7"):
        wrong("a")


def test_braces_are_written_twice(c: Coordinator) -> None:
    @leader_only("{{job}}-{x}", coordinator=c)
    def job(x: str) -> str:
        return coord.require_term().role

    assert job("a") == "{job}-a"


def test_a_process_keeps_at_most_so_many_roles() -> None:
    store = MemoryStore()
    coordinator, other = Coordinator(store=store), Coordinator(store=store)
    ran: list[str] = []

    def decorated(c: Coordinator) -> Callable[[str], None]:
        @leader_only("job-{x}", coordinator=c, scope="process", max_roles=2)
        def job(x: str) -> None:
            ran.append(x)

        return job

    job = decorated(coordinator)
    with other.leadership("job-a", ttl=30) as lead:
        assert lead.wait(20)
        job("a")  # another process leads it, so this one is a candidate that waits
        job("b")
        assert ran == ["b"]
        job("c")  # "a" makes room
        assert ran == ["b", "c"]
        with pytest.raises(TooManyRoles, match=r"job-d.*2 roles"):
            job("d")
        job("b")
        job("c")
        assert ran == ["b", "c", "b", "c"]
        assert roles(coordinator) == {"job-a", "job-b", "job-c"}
    coordinator.close()
    other.close()


def test_a_call_has_room_for_its_role_before_it_begins() -> None:
    with Coordinator(store=MemoryStore()) as c:
        calls = GuardedCalls(
            1,
            c,
            scope="process",
            ttl=30.0,
            otherwise="raise",
            at_least=0.0,
            at_most=None,
            timeout=None,
        )
        first = calls.templated("job-a")
        # As another thread does between the two steps of a call.
        with pytest.raises(TooManyRoles, match="job-b"):
            calls.templated("job-b")
        assert first.call(lambda: "a") == "a"
        c.shared_leadership("job-a", 30).stop()
        assert calls.templated("job-b").call(lambda: "b") == "b"
        c.shared_leadership("job-b", 30).stop()
        dropped = calls.templated("job-c")
        del dropped
        assert calls.templated("job-d").call(lambda: "d") == "d"


def test_a_call_that_waits_for_its_role_keeps_it() -> None:
    store = MemoryStore()
    results: list[str] = []
    with Coordinator(store=store) as coordinator, Coordinator(store=store) as other:

        @leader_only(
            "job-{x}", coordinator=coordinator, scope="process", otherwise="wait", max_roles=1
        )
        def job(x: str) -> None:
            results.append(x)

        with other.leadership("job-a", ttl=30) as lead:
            assert lead.wait(20)
            waiting = threading.Thread(target=job, args=("a",))
            waiting.start()
            eventually(lambda: len(other.candidates("job-a")) == 1)
            with pytest.raises(TooManyRoles, match="job-b"):
                job("b")
        waiting.join(20)
        assert results == ["a"]


def test_slots_let_so_many_calls_run() -> None:
    store = MemoryStore()
    coordinators = [Coordinator(store=store) for _ in range(3)]
    running = threading.Barrier(3)
    slots: list[int | None] = []

    def decorated(c: Coordinator) -> Callable[[], str | None]:
        @leader_only("job", coordinator=c, scope="call", slots=2)
        def job() -> str:
            slots.append(coord.require_term().slot)
            running.wait(20)
            running.wait(20)
            return "done"

        return job

    jobs = [decorated(c) for c in coordinators]
    threads = [threading.Thread(target=job) for job in jobs[:2]]
    for thread in threads:
        thread.start()
    running.wait(20)
    assert sorted(map(str, slots)) == ["0", "1"]
    assert jobs[2]() is None
    running.wait(20)
    for thread in threads:
        thread.join()
    kept = leader_only("kept", coordinator=coordinators[0], slots=2)(lambda: "ran")
    assert kept() == kept() == "ran"
    with pytest.raises(coord.BadArgument, match="slots"):
        leader_only("kept", slots=0)
    other = leader_only("kept", coordinator=coordinators[1], slots=3)(lambda: "ran")
    with pytest.raises(coord.SlotsDiffer):
        other()
    for c in coordinators:
        c.close()
