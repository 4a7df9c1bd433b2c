"""Contract tests of names and infos of every kind, of reads, and of many candidates that use many
connections at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

from coord.core.lease import Revision
from coord.core.operations import Answer
from coord.testing.contract.harness import (
    ContractHarness,
    StoreDriver,
    applied,
    expect,
    refused,
    same,
)

NAMES = (
    "a",
    "%s",
    "{}",
    "'; DROP TABLE coord_leases; --",
    'double " quote',
    "back\\slash/and/slash",
    "line\nbreak\ttab",
    "ünï→código 🦑",
    "e\u0301 and é are two roles",
    "\u202eright to left",
    " spaces ",
    "$where.r.row['x']",
)
INFOS: tuple[dict[str, Any], ...] = (
    {},
    {"ü": "🦑 \" ' \\ \n", "": None},
    {"nested": {"list": [1, -2.5, True, False, None, "x", [], {}], "deep": [[[{"a": {"b": []}}]]]}},
    {"great": 2**53, "small": -(2**53), "fraction": 0.1, "zero": 0},
    {"text": "x" * 15_000},
)


class SharingContract(ContractHarness):
    def test_any_role_name(self) -> None:
        async def body(at: StoreDriver) -> None:
            tail = at.fresh_role()[-8:]
            full = "ä" * 56 + tail
            same(len(full.encode()), 120, "bytes of the longest name")
            roles = (
                [name + tail for name in NAMES]
                + [tail + name for name in NAMES]
                + [full, full[:-1]]
            )
            for number, role in enumerate(roles):
                same(
                    applied(await at.claim("a", number + 1, role=role)).role,
                    role,
                    "the role in the answer",
                )
            rows = await at.read(*roles)
            same(
                {role: row.beat for role, row in rows.items()},
                {r: n + 1 for n, r in enumerate(roles)},
                "the rows",
            )
            everything = {lease.role for lease in await at.store.read(None, self.timeout)}
            expect(everything >= set(roles), "a read of all roles returns each role")

        self.run(body)

    def test_any_holder_name(self) -> None:
        async def body(at: StoreDriver) -> None:
            for beat, name in enumerate(NAMES, 1):
                lease = applied(await at.claim(name, beat, takeover=True))
                same(lease.holder, name, "holder")
                same((await at.row()).holder, name, "holder as read")

        self.run(body)

    def test_info_round_trip(self) -> None:
        async def body(at: StoreDriver) -> None:
            other = await at.another()
            for beat, info in enumerate(INFOS, 1):
                same(
                    dict(applied(await at.claim("a", beat, takeover=True, info=info)).info),
                    info,
                    "info in the answer",
                )
                same(dict((await other.row()).info), info, "info as another reads it")
                same(
                    dict(refused(await other.claim("b", 1)).info),
                    info,
                    "info in the answer to a refused claim",
                )

        self.run(body)

    def test_read_some_all_none(self) -> None:
        async def body(at: StoreDriver) -> None:
            there, absent = [at.fresh_role() for _ in range(3)], at.fresh_role()
            for role in there:
                applied(await at.claim("a", role=role))
            same(
                set(await at.read(there[0], absent, there[2])),
                {there[0], there[2]},
                "rows of some roles",
            )
            same(await at.store.read([], self.timeout), [], "rows of no roles")
            everything = [lease.role for lease in await at.store.read(None, self.timeout)]
            expect(
                set(everything) >= set(there) and absent not in everything,
                "all rows, and no absent one",
            )
            same(len(everything), len(set(everything)), "each row once")

        self.run(body)

    def test_one_stores_write_is_the_others_read(self) -> None:
        async def body(at: StoreDriver) -> None:
            other = await at.another()
            for beat in range(1, 30):
                writer, reader = (at, other) if beat % 2 else (other, at)
                applied(await writer.claim("a", beat, takeover=True))
                same(
                    (await reader.row()).revision,
                    Revision("a", beat, beat),
                    "as read at once after the answer",
                )

        self.run(body)

    def test_remaining_falls_with_time(self) -> None:
        async def body(at: StoreDriver) -> None:
            other = await at.another()
            applied(await at.claim("a", ttl=0.4))
            if not at.has_clock:
                expect(0 <= (await other.row()).remaining <= 0.4, "remaining is at most the ttl")
                return
            first = (await other.row()).remaining
            await asyncio.sleep(0.1)
            second = (await other.row()).remaining
            expect(0.4 >= first > second + 0.05, f"{first} then {second}")
            await at.run_out(0.4)
            expect((await other.row()).remaining <= 0, "the lease has expired")

        self.run(body)

    def test_of_many_that_claim_at_once_one_gets_it(self) -> None:
        async def body(at: StoreDriver) -> None:
            hands = [at, await at.another(), await at.another()]
            revision: Revision | None = None
            for turn in range(12):
                results = await asyncio.gather(
                    *(
                        hands[number % 3].claim(
                            f"{turn}-{number}", 1, expected=revision, takeover=revision is not None
                        )
                        for number in range(12)
                    )
                )
                won = [
                    result.lease
                    for result in results
                    if isinstance(result, Answer) and result.applied
                ]
                same(len(won), 1, f"answers that say applied, of {results}")
                for result in results:
                    expect(isinstance(result, Answer), f"an answer, not {result!r}")
                same((await hands[1].row()).revision, won[0].revision, "the row is the winner's")
                same(won[0].token, turn + 1, "each round issues one token")
                revision = won[0].revision

        self.run(body)

    def test_requests_of_one_store_at_once_do_not_mix(self) -> None:
        async def body(at: StoreDriver) -> None:
            roles = [at.fresh_role() for _ in range(40)]
            claims = await asyncio.gather(*(at.claim(role, 3, role=role) for role in roles))
            same(
                [applied(result).holder for result in claims],
                roles,
                "each request gets its own answer",
            )

        self.run(body)

    def test_a_closed_store_can_be_closed_again(self) -> None:
        async def body(at: StoreDriver) -> None:
            applied(await at.claim("a"))
            await at.store.close()
            await at.store.close()

        self.run(body)
