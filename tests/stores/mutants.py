"""Faults in the swaps of a store, in the language of its server, and the checks that notice them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from coord.stores.protocol import Store
from coord.testing import StoreContract
from tests.stores.lockstep import run_on_server

LOCKSTEP = "lockstep"
"""The check that compares the store with the memory store, step by step."""
EXAMPLES = 100
QUIETLY = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::RuntimeWarning"
)
"""A check that fails leaves requests that nobody awaits."""


@dataclass(frozen=True)
class SwapMutant:
    """One fault.

    Attributes:
        name: What is wrong.
        place: The script, function or module that contains it.
        old: The text to replace, which occurs once there.
        new: What replaces it.
        check: The test of the contract that notices it, without `test_`, or `LOCKSTEP`.
        guarded: Whether a guard of the server may notice it first, and refuse the request.
    """

    name: str
    place: str
    old: str
    new: str
    check: str = LOCKSTEP
    guarded: bool = False

    def apply(self, text: str) -> str:
        """Return the text with the fault."""
        assert text.count(self.old) == 1, f"{self.old!r} occurs {text.count(self.old)} times"
        return text.replace(self.old, self.new)


class ContractOf(StoreContract):
    """The contract for stores of one class and one URL."""

    def __init__(self, kind: type[Any] | None = None, url: str = "") -> None:
        if kind is not None:
            self._kind, self._url = kind, url

    def make_store(self) -> Store:
        return self._kind(self._url)  # type: ignore[no-any-return] # of a class that is given


def must_be_noticed(mutant: SwapMutant, kind: type[Any], url: str) -> None:
    """Run the check on the faulty store. It must fail, and not because the server cannot answer."""
    for _ in range(3):  # on a busy machine the server may be late, which is no proof
        with pytest.raises(AssertionError) as caught:
            _run(mutant.check, kind, url)
        if mutant.guarded or "Failure(" not in str(caught.value):
            return
    pytest.fail(f"the fault is an error of the server: {caught.value}")


def _run(check: str, kind: type[Any], url: str) -> None:
    if check == LOCKSTEP:
        run_on_server(kind, url, examples=EXAMPLES, mutant=True)
    else:
        getattr(ContractOf(kind, url), f"test_{check}")()
