"""What a swap does to a row: rules 1 to 3, where the stores keep them."""

from __future__ import annotations

import dataclasses
from typing import Any

from coord.core import swaps
from coord.core.lease import Lease, Revision
from coord.core.operations import Claim, Release, Renew

TTL = 30.0


def lease(holder: str | None, token: int, beat: int, **more: Any) -> Lease:
    return Lease("r", holder, token, beat, **{"ttl": TTL, "remaining": TTL, **more})


def test_a_late_claim_finds_another_sight_and_does_nothing() -> None:
    request = Claim("r", "me", 1, TTL, expected=Revision("you", 7, 3), takeover=True)
    assert swaps.claim(lease("you", 7, 4), request, 0) is None
    assert swaps.claim(lease("you", 7, 3), request, 0) is not None


def test_a_claim_that_comes_twice_leaves_its_own_term_alone() -> None:
    first = Claim("r", "me", 1, TTL)
    held = swaps.claim(Lease("r"), first, 0)
    assert held is not None
    assert swaps.claim(held, first, 0) is None
    assert (
        swaps.claim(dataclasses.replace(held, beat=5), dataclasses.replace(first, beat=4), 0)
        is None
    )
    again = swaps.claim(held, dataclasses.replace(first, beat=2), 0)
    assert again is not None
    assert again.token == 2


def test_the_skew_is_strict() -> None:
    request = Claim("r", "me", 1, TTL, skew=2.0)
    assert swaps.claim(lease("you", 7, 3, remaining=-2.0), request, 0) is None
    assert swaps.claim(lease("you", 7, 3, remaining=-2.1), request, 0) is not None
    assert (
        swaps.claim(lease("you", 7, 3, remaining=-99.0), dataclasses.replace(request, skew=None), 0)
        is None
    )


def test_a_renewal_neither_shortens_nor_counts_twice_nor_revives() -> None:
    row = lease("me", 7, 3, remaining=25.0, renewed_at=50.0)
    after = swaps.renew(row, Renew("r", "me", 7, 4, 10.0), 40.0)
    assert after is not None
    assert (after.ttl, after.remaining, after.renewed_at) == (TTL, 25.0, 50.0)
    for wrong in (
        Renew("r", "me", 7, 3, TTL),
        Renew("r", "me", 6, 9, TTL),
        Renew("r", "you", 7, 9, TTL),
    ):
        assert swaps.renew(row, wrong, 0) is None


def test_a_release_keeps_the_token() -> None:
    row = lease("me", 7, 3)
    after = swaps.release(row, Release("r", "me", 7, 4), 0)
    assert after is not None
    assert after.revision == Revision(None, 7, 4)
    for wrong in (Release("r", "me", 7, 3), Release("r", "me", 6, 9), Release("r", "you", 7, 9)):
        assert swaps.release(row, wrong, 0) is None
