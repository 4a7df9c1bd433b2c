"""coord's `dataclass` beside the standard one: the same classes, made by both, behave alike."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from dataclasses import field
from typing import Any

import pytest

from coord import dataclass as quick
from coord.candidate import Candidate
from coord.election import Done, Election, Wait
from coord.lease import Lease
from coord.operations import Claim, Renew
from coord.timing import Timing

Make = Callable[..., Any]
BOTH = pytest.mark.parametrize("make", [dataclasses.dataclass, quick.dataclass], ids=["standard", "coord's"])


def frozen(make: Make) -> Any:
    @make(frozen=True, slots=True)
    class Thing:
        """A thing."""

        name: str
        size: int = 3
        more: dict[str, int] = field(default_factory=dict, hash=False, compare=False)
        odd: list[int] = field(default_factory=list, hash=False)

        @property
        def double(self) -> int:
            return self.size * 2

    return Thing


def mutable(make: Make, **settings: Any) -> Any:
    @make(slots=True, **settings)
    class Thing:
        name: str
        size: int = 3

    return Thing


@BOTH
def test_a_frozen_one(make: Make) -> None:
    cls = frozen(make)
    one = cls("a")
    assert (one.name, one.size, one.more, one.odd, one.double) == ("a", 3, {}, [], 6)
    assert cls("a").more is not one.more
    assert one == cls("a", more={"x": 1})
    assert hash(one) == hash(cls("a", more={"x": 1}, odd=[4]))
    assert one != cls("a", 4)
    assert one != cls("a", odd=[4])
    assert one != ("a", 3)
    assert one != frozen(make)("a")
    assert repr(one) == "frozen.<locals>.Thing(name='a', size=3, more={}, odd=[])"
    assert not hasattr(one, "__dict__")
    for change in (lambda: setattr(one, "size", 4), lambda: delattr(one, "size"), lambda: setattr(one, "new", 4)):
        with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
            change()
    assert one.size == 3


@BOTH
def test_it_is_a_dataclass(make: Make) -> None:
    cls = frozen(make)
    one = cls("a", odd=[1])
    assert dataclasses.is_dataclass(cls)
    assert [each.name for each in dataclasses.fields(cls)] == ["name", "size", "more", "odd"]
    assert dataclasses.replace(one, size=7) == cls("a", 7, odd=[1])
    assert dataclasses.asdict(one) == {"name": "a", "size": 3, "more": {}, "odd": [1]}
    match one:
        case cls(name, size):
            assert (name, size) == ("a", 3)
    for twin in (copy.copy(one), copy.deepcopy(one)):
        assert twin == one
        assert twin is not one
    assert copy.deepcopy(one).odd is not one.odd
    signature = inspect.signature(cls)
    assert list(signature.parameters) == ["name", "size", "more", "odd"]
    assert signature.parameters["size"].default == 3
    assert signature.parameters["size"].annotation == "int"
    for wrong in ((), ("a", 1, {}, [], 5)):
        with pytest.raises(TypeError, match="__init__"):
            cls(*wrong)


@BOTH
def test_one_that_changes(make: Make) -> None:
    cls = mutable(make)
    one = cls("a")
    one.size = 9
    assert one == cls("a", 9)
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)
    assert cls.__doc__
    other = mutable(make, eq=False)
    assert other("a") != other("a")
    assert hash(other("a"))


@pytest.mark.parametrize(
    "value",
    [
        Lease("r", "a", 3, info={"x": 1}, since=2.0),
        Claim("r", "a", 1, 30.0, lost=(1, "expired")),
        Renew("r", "a", 1, 2, 30.0),
        Candidate("r", "a"),
        Timing.of(30),
        Wait(1.5),
        Done(),
        Election("r", "a", Timing.of(30)),
    ],
)
def test_values_travel(value: Any) -> None:
    for twin in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value), dataclasses.replace(value)):
        assert twin == value
        assert repr(twin) == repr(value)
