"""Contract tests of the text that a role keeps (`protocol.HasKept`). A store without it passes."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from coord.core.kept import MAX_KEPT_BYTES, Kept
from coord.core.operations import Claim, Release, Renew
from coord.stores.protocol import Bulk, HasKept, Immediate
from coord.testing.contract.harness import (
    ContractHarness,
    StoreDriver,
    answered,
    applied,
    expect,
    refused,
    same,
)

Body = Callable[[StoreDriver, HasKept], Awaitable[None]]


class KeptContract(ContractHarness):
    def test_a_renewal_may_replace_the_kept_text(self) -> None:
        async def body(at: StoreDriver, store: HasKept) -> None:
            same(await store.kept(at.role, self.timeout), Kept(0, ""), "a role without a row")
            applied(await at.claim("a", 1, floor=4, info={"n": 1}))
            same(await store.kept(at.role, self.timeout), Kept(5, ""), "before anything is kept")
            text = '{"a": \'ü🦑\\"\\\\$x {table} % \t\n\x01\'}'
            row = applied(await at.renew("a", 5, 2, keep=text))
            same((row.token, row.beat), (5, 2), "the renewed row")
            same(await store.kept(at.role, self.timeout), Kept(5, text), "as read")
            other = (await at.another()).store
            assert isinstance(other, HasKept)
            same(await other.kept(at.role, self.timeout), Kept(5, text), "as another reads it")
            applied(await at.renew("a", 5, 3))
            same(await store.kept(at.role, self.timeout), Kept(5, text), "after one without news")
            same(dict((await at.row()).info), {"n": 1}, "the info of the row")
            applied(await at.renew("a", 5, 4, keep=""))
            same(await store.kept(at.role, self.timeout), Kept(5, ""), "an empty text")

        self.keeping(body)

    def test_a_release_may_replace_the_kept_text(self) -> None:
        async def body(at: StoreDriver, store: HasKept) -> None:
            for turn, linger, to in ((1, 0.0, None), (2, 0.3, None), (3, 0.2, "b")):
                lease = applied(await at.claim("a", 10 * turn, takeover=True))
                row = applied(
                    await at.release(
                        "a", lease.token, 10 * turn + 1, linger=linger, to=to, keep=f"{turn}"
                    )
                )
                same(row.token, lease.token, "a release keeps the token")
                stored = await store.kept(at.role, self.timeout)
                same(stored, Kept(lease.token, f"{turn}"), "as read after the release")
            applied(await at.claim("b", 1))
            applied(await at.release("b", 4, 2))
            same(await store.kept(at.role, self.timeout), Kept(4, "3"), "after one without news")

        self.keeping(body)

    def test_nobody_keeps_a_text_under_an_older_token(self) -> None:
        async def body(at: StoreDriver, store: HasKept) -> None:
            absent = Renew(at.fresh_role(), "a", 0, 1, 30.0, keep="x")
            refused((await at.renew_all([absent]))[0])
            same(await store.kept(absent.role, self.timeout), Kept(0, ""), "an absent role")
            first = applied(await at.claim("a", 1))
            applied(await at.renew("a", 1, 2, keep="first"))
            revision = (await at.row()).revision
            applied(await at.claim("b", 5, expected=revision, takeover=True))
            for holder, token, beat in (
                ("a", first.token, 9),  # it was taken
                ("a", 2, 9),  # the new token, which is another's
                ("b", 1, 9),
                ("b", 3, 9),
                ("b", 2, 5),  # a duplicate
            ):
                refused(await at.renew(holder, token, beat, keep="wrong"))
                refused(await at.release(holder, token, beat, keep="wrong"))
                stored = await store.kept(at.role, self.timeout)
                same(stored, Kept(2, "first"), f"after {holder}, token {token}, beat {beat}")
            applied(await at.release("b", 2, 6))
            refused(await at.renew("b", 2, 7, keep="wrong"))
            refused(await at.release("b", 2, 7, keep="wrong"))
            same(await store.kept(at.role, self.timeout), Kept(2, "first"), "after its release")

        self.keeping(body)

    def test_the_kept_text_outlives_terms(self) -> None:
        async def body(at: StoreDriver, store: HasKept) -> None:
            applied(await at.claim("a", 1, ttl=0.2))
            applied(await at.renew("a", 1, 2, ttl=0.2, keep="kept"))

            async def is_kept(token: int, when: str) -> None:
                same(await store.kept(at.role, self.timeout), Kept(token, "kept"), when)

            await at.run_out(0.2)
            await is_kept(1, "after the lease ran out")
            revision = (await at.row()).revision
            applied(await at.claim("b", 1, expected=revision, takeover=True, info={"who": "b"}))
            await is_kept(2, "after a takeover")
            applied(await at.renew("b", 2, 2, ttl=60.0))
            await is_kept(2, "after a renewal for longer")
            replaced = Renew(at.role, "b", 2, 3, 60.0, {"who": "b again"})
            applied((await at.renew_all([replaced]))[0])
            await is_kept(2, "after a renewal with an info")
            applied(await at.claim("b", 4))
            await is_kept(3, "after the holder claimed again")
            applied(await at.release("b", 3, 5))
            await is_kept(3, "while the role is vacant")
            applied(await at.claim("c", 1, floor=20))
            await is_kept(21, "after a claim with a floor")
            applied(await at.release("c", 21, 2, linger=0.2, to="d"))
            await is_kept(21, "while the role is reserved")
            applied(await at.claim("d", 1))
            await is_kept(22, "after a handover")

        self.keeping(body)

    def test_a_batch_in_which_some_keep_a_text(self) -> None:
        async def body(at: StoreDriver, store: HasKept) -> None:
            roles = [at.fresh_role() for _ in range(6)]
            for role in roles:
                applied(await at.claim("a", 1, role=role))
            first = [Renew(role, "a", 1, 2, 30.0, keep=f"old {role}") for role in roles[:4]]
            for result in await at.renew_all(first):
                applied(result)
            batch = [
                Renew(roles[0], "a", 1, 3, 30.0, keep="new"),
                Renew(roles[1], "a", 1, 3, 30.0),
                Renew(roles[2], "b", 1, 3, 30.0, keep="wrong"),
                Renew(roles[3], "a", 1, 3, 30.0, {"n": 1}, keep=""),
                Renew(roles[4], "a", 1, 3, 30.0, {"n": 2}, keep="both"),
                Renew(at.role, "a", 1, 3, 30.0, keep="absent"),
                Renew(roles[5], "a", 1, 3, 90.0),
            ]
            results = await at.renew_all(batch)
            same(
                [answered(result).applied for result in results],
                [True, True, False, True, True, False, True],
                "those that were renewed",
            )
            same(
                [answered(result).lease.role for result in results],
                [renewal.role for renewal in batch],
                "their order",
            )
            stored = [(await store.kept(role, self.timeout)).text for role in roles]
            texts = ["new", f"old {roles[1]}", f"old {roles[2]}", "", "both", ""]
            same(stored, texts, "the kept texts")
            rows = await at.read(*roles)
            same(dict(rows[roles[4]].info), {"n": 2}, "an info that came with a text")
            if isinstance(at.store, Bulk):
                swaps: list[Claim | Release] = [
                    Release(roles[0], "a", 1, 4, keep="in bulk"),
                    Release(roles[1], "a", 1, 4),
                    Release(roles[2], "b", 1, 4, keep="wrong"),
                    Claim(at.role, "a", 1, 30.0),
                ]
                done = await at.store.swap_all(swaps, self.timeout)
                same([answered(r).applied for r in done], [True, True, False, True], "swaps")
                stored = [(await store.kept(role, self.timeout)).text for role in roles[:3]]
                same(stored, ["in bulk", *texts[1:3]], "the texts after a batch of releases")

        self.keeping(body)

    def test_a_text_that_is_sent_at_once(self) -> None:
        async def body(at: StoreDriver, store: HasKept) -> None:
            if not isinstance(at.store, Immediate):
                return
            applied(await at.claim("a", 1))  # a connection is open now
            pending = at.store.begin(Renew(at.role, "a", 1, 2, 30.0, keep="one"), self.timeout)
            if pending is not None:
                applied(await pending)
                same(await store.kept(at.role, self.timeout), Kept(1, "one"), "after a renewal")
            pending = at.store.begin(Release(at.role, "a", 1, 3, keep="two"), self.timeout)
            if pending is not None:
                applied(await pending)
                same(await store.kept(at.role, self.timeout), Kept(1, "two"), "after a release")

        self.keeping(body)

    def test_a_long_text_is_kept(self) -> None:
        async def body(at: StoreDriver, store: HasKept) -> None:
            applied(await at.claim("a", 1))
            letters = b'abcdefghijklmnopqrstuvwxyz"\\'
            some = random.Random(1).randbytes(MAX_KEPT_BYTES)  # noqa: S311 # no secret
            text = some.translate(bytes(letters[n % len(letters)] for n in range(256))).decode()
            applied(await at.renew("a", 1, 2, keep=text))
            expect((await store.kept(at.role, self.timeout)).text == text, "the text as read")
            applied(await at.renew("a", 1, 3))
            applied(await at.release("a", 1, 4))
            expect((await store.kept(at.role, self.timeout)).text == text, "the text afterwards")

        self.keeping(body)

    def keeping(self, body: Body) -> None:
        async def with_store(at: StoreDriver) -> None:
            if isinstance(at.store, HasKept):
                await body(at, at.store)

        self.run(with_store)
