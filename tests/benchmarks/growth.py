"""How cost grows with the number of roles that one process holds: queries, CPU, memory. Each point
a fresh process.

A process that has held more before keeps what it freed, and then shows too little; so no two points
share one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.alone import alone
from tests.benchmarks.counting import ServerTotal
from tests.benchmarks.figures import Aim, Figure, Reference, with_unit
from tests.benchmarks.page import Section, Table
from tests.benchmarks.plots import Panel, Picture
from tests.benchmarks.setting import Setting, spawn

MANY = {"RethinkDB": 10_000, "SQLite": 1_000}
"""Held for ten ttls, to see whether a term is lost."""


@dataclass
class Point:
    """What a holder reports of itself, and what the server counted meanwhile, in queries a second."""

    report: dict[str, Any]
    by_server: float | None

    @property
    def roles(self) -> int:
        return int(self.report["roles"])

    @property
    def queries(self) -> float:
        """A second, on any table, feeds left out."""
        return float(
            sum(
                rate for what, rate in self.report["queries"].items() if not what.startswith("feed")
            )
        )

    @property
    def cpu(self) -> float:
        """In percent of a core."""
        return float(self.report["cpu"]) * 100

    def kilobytes(self, kind: str) -> float:
        """Beyond the process with one role, in all."""
        return float(self.report["above_base"][kind]) / 1000

    @property
    def each(self) -> float:
        """Resident kilobytes a role."""
        return self.kilobytes("rss") / max(1, self.roles - 1)


class Holder:
    """A running point."""

    def __init__(self, where: Setting, store: str, roles: int, ttl: float, seconds: float) -> None:
        url = where.url(store, f"held_{roles}")
        server = where.server if store == "RethinkDB" else None
        self._total = None if server is None else ServerTotal(server.host, server.port)
        self._process = spawn("holder", url, roles, ttl, seconds)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def steady(self) -> None:
        """Wait until it measures."""
        assert self._line() == "steady", "the holder broke off: see its error above"
        self._before = self._total.read() if self._total else 0

    def result(self) -> Point:
        assert self._line() == "measured", "the holder broke off: see its error above"
        after = self._total.read() if self._total else 0
        output = json.loads(self._line())
        self._process.wait(30)
        by_server = None
        if self._total:
            by_server = (after - self._before) / output["seconds"]
        return Point(output, by_server)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self._total is not None:
            self._total.close()


def side_by_side(
    where: Setting, counts: dict[str, int], ttl: float, seconds: float
) -> dict[str, Point]:
    """One point on each store at the same time: both mostly wait, and a process's CPU time is its
    own."""

    def point(store: str) -> Point:
        holder = Holder(where, store, counts[store], ttl, seconds)
        try:
            holder.steady()
            return holder.result()
        finally:
            holder.end()

    with ThreadPoolExecutor() as pool:
        return dict(zip(counts, pool.map(point, counts), strict=True))


def measure(
    where: Setting, sizes: dict[str, Sequence[int]], ttl: float, many: dict[str, int]
) -> dict[str, list[Point]]:
    """The points of each store. Those of `many` are held for ten ttls, all others for two renewal
    periods."""
    points: dict[str, list[Point]] = {store: [] for store in sizes}
    rounds: list[tuple[dict[str, int], float]] = []
    plain = {
        store: [size for size in some if size != many.get(store)] for store, some in sizes.items()
    }
    for turn in range(max(map(len, plain.values()))):
        rounds.append(
            ({store: some[turn] for store, some in plain.items() if turn < len(some)}, ttl * 2 / 3)
        )
    rounds.append((many, where.pick(10, 10, 1) * ttl))
    for counts, seconds in rounds:
        for store, point in side_by_side(where, counts, ttl, seconds).items():
            points[store].append(point)
    return {store: sorted(some, key=lambda point: point.roles) for store, some in points.items()}


def figures(store: str, point: Point) -> list[Figure]:
    output = point.report
    name = f"{store}, {point.roles:,} roles, ttl {output['ttl']:g} s"
    kept = [
        Figure(
            f"{name}: terms lost in {output['seconds']:.0f} s", output["lost"], "", (Aim("=", 0),)
        )
    ]
    if output["busy"]:
        rate = output["renewals"] / output["busy"]
        kept.append(
            Figure(
                f"{name}: renewals a second while a batch is under way",
                rate,
                "/s",
                (Aim("≥", 15_000),),
            )
        )
    server = (
        None if point.by_server is None else Reference("the server's own count", point.by_server)
    )
    kept += [
        Figure(f"{name}: CPU of the process, of a core", point.cpu, "%", (Aim("<", 25),)),
        Figure(f"{name}: resident memory a role", point.each, "kB", (Aim("≤", 6),)),
        Figure(f"{name}: queries a second", point.queries, "", (), server),
        Figure(f"{name}: all elected within", output["elected_in"], "s"),
    ]
    return kept


HEAD = [
    "roles",
    "queries/s",
    "by table",
    "server's count/s",
    "CPU, % of a core",
    "RSS, MB",
    "USS, MB",
]


def row(point: Point) -> list[str]:
    tables = ", ".join(
        f"{what} {rate:.2g}" for what, rate in sorted(point.report["queries"].items())
    )
    memory = [f"{point.kilobytes(kind) / 1000:.2f}" for kind in ("rss", "uss")]
    server = "" if point.by_server is None else f"{point.by_server:.2f}"
    cells = [
        f"{point.roles:,}",
        f"{point.queries:.2f}",
        tables,
        server,
        f"{point.cpu:.2f}",
        *memory,
    ]
    return [*cells, with_unit(point.each, "kB")]


def section(points: dict[str, list[Point]], ttl: float, many: dict[str, int]) -> Section:
    def series(value: Any) -> dict[str, list[tuple[float, float]]]:
        return {
            store: [(point.roles, value(point)) for point in some if value(point) > 0]
            for store, some in points.items()
        }

    picture = Picture(
        "growth",
        "Queries a second, CPU and memory of one process over the number of roles it holds",
        (
            Panel("queries", "roles held", "a second", series(lambda point: point.queries)),
            Panel("CPU", "roles held", "% of a core", series(lambda point: point.cpu)),
            Panel(
                "memory beyond one role",
                "roles held",
                "MB",
                series(lambda point: point.kilobytes("rss") / 1000),
            ),
        ),
    )
    note = (
        f"One process holds all these roles at a ttl of {ttl:g} s (renewals every {ttl / 3:g} s). Each point is a "
        "fresh process, measured once all are held, over two renewal periods or more. Queries are counted at "
        "the pool, by table, and by the server itself (`queries_total`); on SQLite a query is a transaction, counted "
        "at the worker. CPU is the process's time by the wall's. Memory is what the process has beyond itself with the "
        "coordinator open and one role held, garbage collected. The points of both stores run side by side."
    )
    tables = [
        Table([f"{store}: {HEAD[0]}", *HEAD[1:], "RSS a role"], [row(point) for point in some])
        for store, some in points.items()
    ]
    return Section(
        "How cost grows with the roles held",
        [
            figure
            for store, some in points.items()
            for point in some
            if point.roles == many[store]
            for figure in figures(store, point)
        ],
        note,
        (picture,),
        tables,
    )


def sections(where: Setting) -> list[Section]:
    ttl = where.pick(15.0, 3.0, 1.0)
    many = where.pick(dict(MANY), dict.fromkeys(MANY, 100), dict.fromkeys(MANY, 10))
    few: dict[str, Sequence[int]] = {"SQLite": (10, 30), "RethinkDB": (10, 30)}
    sizes = where.pick(
        {"SQLite": (10, 100, 3_000), "RethinkDB": (10, 100, 1_000)},
        few,
        dict.fromkeys(few, (2,)),
    )
    if where.server is None:
        del many["RethinkDB"], sizes["RethinkDB"]
    return [section(measure(where, sizes, ttl, many), ttl, many)]


if __name__ == "__main__":
    alone(sections)
