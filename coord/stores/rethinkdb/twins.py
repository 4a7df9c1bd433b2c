"""Tables of one name: which one stays. Everybody who looks comes to the same result, and no record is ever lost.

Twins cannot be addressed by their name, so each but the first by id is renamed to `<name>_twin_<id>`; from then on the
name means one table again, and the renamed can be looked into. An empty one is dropped, by its id. If the first is
empty and one twin is not, that twin gets the name. If two hold records, people must decide, and `NotSetUp` says so: a
table that has the name and records keeps both, otherwise nothing has the name until they did, for an empty table of
leases would count its tokens from 1 again.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Protocol

from coord.errors import NotSetUp
from coord.stores.rethinkdb.errors import Trouble
from coord.stores.rethinkdb.url import RethinkURL

SETTLE = 0.3
"""Seconds between renaming and looking: a write that found the table by its old name is done by then."""


class Asker(Protocol):
    """What runs the queries."""

    url: RethinkURL
    r: Any
    system: Any

    async def ask(self, term: Any) -> Any:
        """One query."""


def twin_name(name: str, table_id: str) -> str:
    """What a twin is called once it is known as one."""
    return f"{name}_twin_{table_id.replace('-', '')[:12]}"


async def merge_twins(asker: Asker, name: str) -> list[str]:
    """Leave one table called `name` at most; the ids of those that were dropped. Raises `NotSetUp`, `Trouble`."""
    tables = asker.system.table("table_config")
    mine = tables.filter({"db": asker.url.database})
    found = await asker.ask(mine.pluck("id", "name").coerce_to("array"))
    pattern = re.compile(re.escape(name) + r"_twin_[0-9a-f]{12}")
    named = sorted(one["id"] for one in found if one["name"] == name)
    renamed = {one["id"] for one in found if pattern.fullmatch(one["name"])}
    if len(named) < 2 and not renamed:
        return []
    for twin in named[1:]:
        await asker.ask(tables.get(twin).update({"name": twin_name(name, twin)}))
    await asyncio.sleep(SETTLE)
    others = sorted(renamed.union(named[1:]))
    empty = {one for one in others if await _is_empty(asker, twin_name(name, one))}
    full = [one for one in others if one not in empty]
    if full and (not named or await _is_empty(asker, name)):
        if named:
            await asker.ask(tables.get(named[0]).update({"name": twin_name(name, named[0])}))
            empty.add(named[0])
        if len(full) == 1:
            await asker.ask(tables.get(full.pop()).update({"name": name}))
    for one in sorted(empty):
        await asker.ask(tables.get(one).delete())
    if full:
        left = ", ".join(twin_name(name, one) for one in full)
        raise NotSetUp(
            f"there were tables of one name {name!r} in {asker.url.redacted}, and more than one holds records: "
            f"look at {left}, move what is wanted of it into one table called {name} "
            f"(of leases, the higher token), drop the rest"
        )
    return sorted(empty)


async def _is_empty(asker: Asker, name: str) -> bool:
    """A table that is gone counts as empty: somebody else did the same work."""
    table = asker.r.db(asker.url.database).table(name)
    for _ in range(50):
        try:
            await asker.ask(table.wait(wait_for="ready_for_reads", timeout=10))
            return bool(await asker.ask(asker.r.db(asker.url.database).table(name, read_mode="majority").is_empty()))
        except Trouble as trouble:
            if "does not exist" in trouble.detail:
                return True
            if trouble.refused is not None or not trouble.elsewhere:
                raise
            await asyncio.sleep(0.1)  # renamed a moment ago, not ready just yet
    return False
