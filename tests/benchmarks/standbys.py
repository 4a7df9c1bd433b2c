"""What waiting costs the store: queries a ttl of one standby, and of a thousand of one role in one
process."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from coord import Coordinator
from tests.benchmarks.alone import alone
from tests.benchmarks.figures import Aim, Figure
from tests.benchmarks.page import Section
from tests.benchmarks.setting import Setting, spawn

TTLS = 4


def measure(
    url: str, numbers: list[int], ttl: float, ttls: int = TTLS
) -> dict[int, dict[str, float]]:
    """Queries a ttl by table, of so many standbys in one process each; all side by side, each for a
    role of its own."""
    with Coordinator(url) as leader:
        for number in numbers:
            assert leader.leadership(f"stood-by-{number}", ttl=ttl).acquire(timeout=10)
        children = {
            number: spawn("stander", url, f"stood-by-{number}", number, ttl, ttls)
            for number in numbers
        }
        counts = {}
        for number, child in children.items():
            output, _ = child.communicate(timeout=60 + 10 * ttl)
            counts[number] = {what: count / ttls for what, count in json.loads(output).items()}
        return counts


def figures(store: str, counts: dict[int, dict[str, float]]) -> list[Figure]:
    rows = []
    for number, request in counts.items():
        who = "one standby" if number == 1 else f"{number:,} standbys of one role in one process"
        rows.append(
            Figure(f"{store}: {who}: queries a ttl", sum(request.values()), "", (Aim("≤", 1),))
        )
        rows += [
            Figure(f"{store}: {who}: of these, {what}", count)
            for what, count in sorted(request.items())
        ]
    return rows


def sections(where: Setting) -> list[Section]:
    ttl, many = where.pick((3.0, 1_000), (1.5, 50), (0.6, 3))
    urls = where.stores("standbys")
    with (
        ThreadPoolExecutor() as pool
    ):  # waiting costs little: that of one store does not disturb the other's
        counts = list(pool.map(lambda url: measure(url, [1, many], ttl), urls.values()))
    figures_of_all = [
        figure
        for store, first in zip(urls, counts, strict=True)
        for figure in figures(store, first)
    ]
    note = (
        f"While another process leads, at a ttl of {ttl:g} s, over {TTLS} ttls from two ttls after all have learnt who "
        "leads. A changefeed is opened once and then costs no query (its opening would be counted); a look of SQLite's "
        "feed at `PRAGMA data_version` takes no lock and is not counted."
    )
    return [Section("Standing by", figures_of_all, note)]


if __name__ == "__main__":
    alone(sections)
