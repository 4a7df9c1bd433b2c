"""The benchmarks still run, at tiny size, and measure what they say; the judgement of aims is
right."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from coord.runtime import clock
from tests.benchmarks import __main__ as main
from tests.benchmarks import crowded, growth, memory, page, plots, results, standbys, swaps, turns
from tests.benchmarks.__main__ import BENCHMARKS
from tests.benchmarks.alone import Tries
from tests.benchmarks.counting import LEASES, Counted
from tests.benchmarks.crowd import Crowd
from tests.benchmarks.figures import Aim, Figure, Reference
from tests.benchmarks.setting import Setting
from tests.support import requirements
from tests.support.rethinkdb_server import Server

STORES = ["SQLite", pytest.param("RethinkDB", marks=[pytest.mark.rethinkdb, pytest.mark.long])]


@pytest.fixture
def where(tmp_path: Path, store: str, request: pytest.FixtureRequest) -> Setting:
    server = request.getfixturevalue("rethinkdb_server") if store == "RethinkDB" else None
    servers: dict[str, Any] = {}
    if store == "RethinkDB":
        for name, tool, fixture in (
            ("PostgreSQL", "postgresql", "postgresql_server"),
            ("Redis", "redis", "redis_server"),
            ("etcd", "etcd", "etcd_member"),
        ):
            if requirements.TOOLS[tool].available():
                servers[name] = request.getfixturevalue(fixture)
    if server is not None and not isinstance(server, Server):
        pytest.skip("the benchmarks want a server of their own")
    return Setting(tmp_path, server, "smallest", servers)


@pytest.mark.parametrize("part", BENCHMARKS)
@pytest.mark.rethinkdb
@pytest.mark.parametrize("store", ["RethinkDB"])
def test_each_part_runs_and_gives_figures(where: Setting, part: str) -> None:
    """A setting with a server has SQLite and all other servers as well."""
    sections = BENCHMARKS[part](where)
    assert [line for section in sections for line in section.lines()]
    assert all(figure.value == figure.value for section in sections for figure in section.figures)


def test_each_part_is_in_the_page() -> None:
    """A part is a module that can be run alone."""
    files = Path(__file__).parent.glob("*.py")
    parts = {file.stem for file in files if "    alone(sections)\n" in file.read_text("utf-8")}
    assert parts == set(BENCHMARKS)


@pytest.mark.parametrize("store", STORES[:1])
def test_results_are_the_same_after_they_were_stored(where: Setting, tmp_path: Path) -> None:
    panels = [
        plots.Panel("lines", "roles", "ms", {"SQLite": [[1, 2.5]]}),  # type: ignore[list-item]
        plots.Bars("bars", "ms", [["coord", 1.5]], "coord"),  # type: ignore[list-item]
    ]
    figure = Figure("it", 1.5, "ms", (Aim("≤", 2, "ratio"),), Reference("that", 4))
    table = page.Table(["a"], [["b"]])
    section = page.Section("All", [figure], "how", [plots.Picture("p", "alt", panels)], [table])
    result = results.PartResult("quick", [section], 2.5, "2026-01-01", facts=["fast"])
    assert results.load(tmp_path / "none.json") is None
    results.save(tmp_path / "part.json", result)
    read = results.load(tmp_path / "part.json")
    assert read is not None
    assert [item.lines() for item in read.sections] == [section.lines()]
    assert read == result
    assert read.sections[0].pictures[0].panels == panels


def test_a_part_that_cannot_run_has_failed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "no_such_part.json"
    result = main.run_part("no_such_part", path, "quick")
    assert "No module named" in result.failure
    read = results.load(path)
    assert read is not None
    assert read.failure == result.failure


def test_a_part_that_failed_is_named_and_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = page.Section("Alone", [Figure("it", 1)])
    results.save(tmp_path / "a.json", results.PartResult("quick", [section], 1.0, "2026-01-01"))
    results.save(tmp_path / "b.json", results.PartResult("quick", failure="RuntimeError: no disk"))
    again: list[str] = []

    def run_part(name: str, path: Path, size: str) -> results.PartResult:
        again.append(name)
        part_results = results.load(path)
        assert part_results is not None
        return part_results

    monkeypatch.setattr(main, "BENCHMARKS", dict.fromkeys("ab"))
    monkeypatch.setattr(main, "run_part", run_part)
    part_results = main.run(tmp_path, "quick")
    assert again == ["b"]
    written = main.write(part_results, tmp_path / "page").read_text("utf-8")
    assert "the part `b` failed" in written
    assert "no disk" in written
    assert "## Alone" in written


def test_work_that_fails_on_another_thread_ends_the_benchmark() -> None:
    async def fail_there() -> None:
        thread = swaps.Thread()
        try:
            await thread.there(lambda number: 1 // number)(1)
            with pytest.raises(ZeroDivisionError):
                await thread.there(lambda number: 1 // number)(0)
        finally:
            thread.end()

    asyncio.run(asyncio.wait_for(fail_there(), 30))


@pytest.mark.parametrize("store", STORES)
def test_a_point_of_growth(where: Setting, store: str) -> None:
    (point,) = growth.side_by_side(where, {store: 20}, 1.0, 1.0).values()
    assert point.roles == 20
    assert point.report["lost"] == 0
    assert point.report["renewals"] >= 2 * 20
    assert 0 < point.report["busy"] < 2
    assert point.cpu > 0
    assert point.queries > 0
    assert set(point.report["queries"]) == {LEASES}
    if store == "RethinkDB":
        assert point.by_server == pytest.approx(point.queries, rel=0.5)
    section = growth.section({store: [point]}, 1.0, {store: 20})
    assert "20 roles" in "\n".join(section.lines())


@pytest.mark.parametrize("store", STORES)
def test_many_roles_at_once(where: Setting, store: str) -> None:
    ttl = 3.0  # a busy machine gives all leases back within it
    times = crowded.measure(where.stores("crowded")[store], 40, ttl)
    assert 0 < times.started < 20
    assert 0 < times.stopped < 20
    assert -ttl < times.taken_over < 20


@pytest.mark.parametrize("store", STORES)
def test_succession_is_told_apart_by_candidate(where: Setting, store: str) -> None:
    with Crowd(where.stores("crowd")[store], "role", 6, 1.0, each=2, count=True) as crowd:
        first = crowd.leader
        assert 0 < crowd.hand_over() < 10
        assert crowd.leader.number != first.number
        runs_out = crowd.kill_leader()
        assert 0 < runs_out - clock.total_seconds() <= 1.0
        failover = crowd.failover(runs_out)
        assert -0.1 < failover.late < 10
        assert failover.queries[LEASES] >= 1


@pytest.mark.parametrize("store", STORES)
def test_standbys_are_counted(where: Setting, store: str) -> None:
    part_results = standbys.measure(where.stores("standbys")[store], [1, 5], 1.5, ttls=2)
    assert part_results.keys() == {1, 5}
    assert all(sum(request.values()) <= 2.5 for request in part_results.values())


@pytest.mark.parametrize("store", STORES)
def test_queries_are_counted_until_the_end(where: Setting, store: str) -> None:
    from coord import Coordinator

    counted = Counted()
    try:
        with Coordinator(where.stores("counted")[store]) as coordinator:
            coordinator.leadership("another", ttl=60).acquire()  # creates the file of SQLite
            began = clock.total_seconds()
            coordinator.leader("nobody's")
            assert counted.between(began, clock.total_seconds()).total() == 1
            counted.end()
            coordinator.leader("nobody's")
            assert counted.between(began, clock.total_seconds()).total() == 1
    finally:
        counted.end()


def test_memory_grows_with_what_is_held() -> None:
    before = memory.now()
    held = bytearray(20_000_000)
    grown = memory.now().above(before)
    assert 15_000_000 < grown.rss < 30_000_000
    assert 15_000_000 < grown.uss < 30_000_000
    assert held


def test_turns_change_who_goes_first() -> None:
    order: list[str] = []
    took = turns.medians(
        {"a": lambda: order.append("a") or 1.0, "b": lambda: order.append("b") or 3.0}, 2, warm_up=1
    )
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert took == {"a": 1.0, "b": 3.0}
    assert turns.seconds(lambda: time.sleep(0.01)) >= 0.01


@pytest.mark.parametrize(
    ("aim", "value", "met"),
    [
        (Aim("≤", 5), 5, True),
        (Aim("≤", 5), 5.1, False),
        (Aim("<", 5), 5, False),
        (Aim("≥", 5), 4.9, False),
        (Aim("=", 0), 0, True),
        (Aim("=", 0), 1, False),
        (Aim("≤", 1.25, "ratio"), 5, True),
        (Aim("≤", 1.2, "ratio"), 5, False),
        (Aim("≤", 1, "difference"), 5, True),
        (Aim("≤", 0.9, "difference"), 5, False),
    ],
)
def test_aims_are_judged_by_what_was_measured(aim: Aim, value: float, met: bool) -> None:
    figure = Figure("it", value, "ms", (aim,), Reference("that", 4))
    assert figure.met is met
    assert figure.cells()[-1] == ("yes" if met else "**no**")
    section = page.Section(
        "All", (figure, Figure("another", 1, "ms", (Aim("≤", 2),)), Figure("no aim", 3))
    )
    assert page.verdict([section]).startswith(f"{2 if met else 1} of 2 aims are met.")


def test_a_hiccup_costs_no_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tries, failures = Tries(Setting(tmp_path, None, "quick")), [OSError("busy")]

    def once() -> list[Figure]:
        if failures:
            raise failures.pop()
        return [Figure("it", 1.0)]

    def never() -> list[Figure]:
        raise OSError("gone")

    assert tries.figures(once, "first") == [Figure("it", 1.0)]
    assert tries.note == ""
    assert tries.figures(never, "second") == []
    assert tries.note == " Not measured: second (OSError)."
    assert capsys.readouterr().err.count("OSError") == 3
    with pytest.raises(OSError, match="gone"):
        Tries(Setting(tmp_path, None, "smallest")).figures(never, "third")


def test_pictures_are_small_and_the_same_for_the_same_points(tmp_path: Path) -> None:
    requirements.need("matplotlib")
    panel = plots.Panel(
        "queries", "roles", "a second", {"SQLite": [(10, 1), (100, 2)], "RethinkDB": [(10, 1.5)]}
    )
    bars = plots.Bars("handover", "ms", [("coord", 5.0), ("another", 7.25)], "coord")
    picture = plots.Picture("growth", "how it grows", (panel, bars))
    first = plots.draw(picture, tmp_path).read_bytes()
    assert plots.draw(picture, tmp_path).read_bytes() == first
    assert len(first) < 60_000
    assert b">SQLite<" in first
    assert b">7.25 ms<" in first
