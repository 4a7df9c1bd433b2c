"""A store whose every claim and release travels with others: whatever holds it to a promise, holds
`swap_all` to it. And which of the two ways a test of the contract takes by default."""

from __future__ import annotations

import itertools
import os
import zlib
from types import FunctionType
from typing import Any

import pytest

from coord.core.operations import Answer, Claim, Release, Result
from coord.testing import StoreContract
from coord.testing.contract.announcements import AnnouncementContract
from coord.testing.contract.records import RecordContract

ROLES = 128
"""Roles of the accompanying requests. It must exceed the requests that any test has in flight
(100): each role is claimed again with a newer beat, so two in flight for one role could be applied
in the wrong order."""
_serial = itertools.count(1)


def in_bulk(kind: type[Any]) -> type[Any]:
    """That kind of store, with company for each request: a claim of another role, and a release of
    what nobody has."""

    class InBulk(kind):  # type: ignore[misc] # a class that is given
        async def claim(self, claim: Claim, timeout: float) -> Result:
            return await self._with_others(claim, timeout)

        async def release(self, release: Release, timeout: float) -> Result:
            return await self._with_others(release, timeout)

        async def _with_others(self, request: Claim | Release, timeout: float) -> Result:
            number = next(_serial)
            # few: some tests read whole tables again and again
            name = f"company {os.getpid()} {number % ROLES}"
            company = [
                Claim(f"{name} a", "a", number, 30.0, info={"of": name}),
                Release(f"{name} b", "b", 1, 2),
            ]
            claimed, result, released = await self.swap_all(
                [company[0], request, company[1]], timeout
            )
            if isinstance(result, Answer):
                assert isinstance(claimed, Answer), claimed
                assert claimed.applied
                assert (claimed.lease.holder, claimed.lease.beat) == ("a", number)
                assert dict(claimed.lease.info) == {"of": name}
                assert isinstance(released, Answer), released
                assert (released.applied, released.lease.revision) == (False, (None, 0, 0))
            return result  # type: ignore[no-any-return] # of a class that is given

    return InBulk


WITHOUT_SWAPS = (AnnouncementContract, RecordContract)


def take_turns(alone: type[StoreContract], in_bulk: type[StoreContract]) -> None:
    """Let each test of the contract run in one of these classes, and in the other with COORD_LONG
    only.

    Tests that claim and release nothing run in the first only: they are the same in the second.
    """
    without_swaps = {name for part in WITHOUT_SWAPS for name in vars(part)}
    for name in dir(StoreContract):
        if not name.startswith("test_"):
            continue
        test = getattr(StoreContract, name)
        if name in without_swaps:
            setattr(in_bulk, name, None)
            continue
        classes = [alone, in_bulk]
        chosen = classes.pop(zlib.crc32(name.encode()) % 2)
        setattr(chosen, name, test)
        setattr(classes[0], name, pytest.mark.long(copy_of(test)))


def copy_of(function: FunctionType) -> FunctionType:
    """Return an equal function with marks of its own."""
    copy = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__dict__.update(function.__dict__)
    copy.__kwdefaults__, copy.__qualname__ = function.__kwdefaults__, function.__qualname__
    copy.__annotations__, copy.__doc__ = function.__annotations__, function.__doc__
    return copy
