"""A lookup costs the same however many services of other roles there are: it goes by the index."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coord import ServiceRegistry
from coord.stores.rethinkdb.setup import set_up
from tests.benchmarks import registry_lookup
from tests.support import raw_records

ATTEMPTS = 20


@pytest.mark.parametrize(
    "store", ["memory", "sqlite", pytest.param("rethinkdb", marks=pytest.mark.rethinkdb)]
)
def test_ten_thousand_records_cost_a_lookup_no_more_than_a_hundred(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The ratio of two medians, taken in turns in one run; tried again where something disturbs
    it."""
    if store == "rethinkdb":
        url = request.getfixturevalue("database")
        tables = ("few_services", "many_services")
        asyncio.run(set_up(url, service_tables=tables))
        few, many = (ServiceRegistry(url, table) for table in tables)
        for registry, roles in ((few, 1), (many, 100)):
            for number in range(roles):
                raw_records.write_many(registry, f"role {number}", 100)
    else:
        urls = (
            ("memory://", "memory://")
            if store == "memory"
            else tuple(f"sqlite://{tmp_path}/{n}.db" for n in "ab")
        )
        few, many = ServiceRegistry(urls[0]), ServiceRegistry(urls[1])
        registry_lookup.fill(few, 1)
        registry_lookup.fill(many, 100)
    for _ in range(ATTEMPTS):
        seconds = registry_lookup.measure(few, many, 20)
        slow = {
            name: round(large / small, 2)
            for name, (small, large) in seconds.items()
            if large > 2 * small
        }
        if not slow:
            break
    few.close()
    many.close()
    assert slow == {}
