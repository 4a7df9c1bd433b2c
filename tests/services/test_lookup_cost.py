"""A lookup costs the same however many services of other roles there are: it goes by the index."""

from __future__ import annotations

from pathlib import Path

import pytest

from coord import ServiceRegistry
from tests.benchmarks import registry_lookup
from tests.support import raw_records


@pytest.mark.parametrize(
    "store", ["memory", "sqlite", pytest.param("rethinkdb", marks=pytest.mark.rethinkdb)]
)
def test_ten_thousand_records_cost_a_lookup_no_more_than_a_hundred(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The ratio of two medians of one run, taken in turns; where something disturbs it, it may try
    again."""
    if store == "rethinkdb":
        url = request.getfixturevalue("database")
        few = many = ServiceRegistry(url)
        # On one server both sizes are in turn what the table holds: the same role, before and
        # after.
        raw_records.write_many(few, "role 0", 100)
        small = {
            name: seconds for name, (seconds, _) in registry_lookup.measure(few, few, 20).items()
        }
        for number in range(1, 100):
            raw_records.write_many(many, f"role {number}", 100)
        for _ in range(3):
            large = {
                name: seconds
                for name, (_, seconds) in registry_lookup.measure(many, many, 20).items()
            }
            if all(large[name] <= 2 * small[name] for name in small):
                break
    else:
        urls = (
            ("memory://", "memory://")
            if store == "memory"
            else tuple(f"sqlite://{tmp_path}/{n}.db" for n in "ab")
        )
        few, many = ServiceRegistry(urls[0]), ServiceRegistry(urls[1])
        registry_lookup.fill(few, 1)
        registry_lookup.fill(many, 100)
        for _ in range(3):
            found = registry_lookup.measure(few, many, 20)
            small = {name: one for name, (one, _) in found.items()}
            large = {name: one for name, (_, one) in found.items()}
            if all(large[name] <= 2 * small[name] for name in small):
                break
    few.close()
    many.close()
    assert {
        name: round(large[name] / small[name], 2) for name in small if large[name] > 2 * small[name]
    } == {}
