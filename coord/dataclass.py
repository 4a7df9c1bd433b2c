"""`dataclass` for classes with slots: the standard one, made in a quarter of the time.

That one compiles up to six functions for each class, and a coordinator needs two dozen classes: it took a fifth of all
importing. Here one is compiled, `__init__`, and the others are closures over the names. What comes out is a dataclass
all the same: `fields`, `replace`, `asdict`, `match`, `copy` and `pickle` know it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["dataclass"]
T = TypeVar("T")
Fields = Sequence["dataclasses.Field[Any]"]

if TYPE_CHECKING:
    from dataclasses import dataclass


def _dataclass(*, slots: bool, frozen: bool = False, eq: bool = True) -> Callable[[type[T]], type[T]]:
    """`dataclasses.dataclass`, as far as it is used here: with slots, and without inheritance."""
    assert slots

    def made(plain: type[T]) -> type[T]:
        plain.__doc__ = plain.__doc__ or plain.__name__  # the standard module would ask inspect for one
        cls: Any = dataclasses.dataclass(slots=True, init=False, repr=False, eq=False)(plain)
        fields = dataclasses.fields(cls)
        cls.__init__ = _init(cls, fields)
        cls.__repr__ = _repr([one.name for one in fields if one.repr])
        if eq:
            cls.__eq__, cls.__hash__ = _eq(fields), _hash(fields) if frozen else None
        if frozen:
            cls.__setattr__, cls.__delattr__ = _refuse_to_set, _refuse_to_delete
            cls.__getstate__, cls.__setstate__ = _getstate(fields), _setstate(cls, fields)
        return cls  # type: ignore[no-any-return]

    return made


def _init(cls: type, fields: Fields) -> Callable[..., None]:
    """The slots are set through their descriptors: frozen or not, and quicker than `object.__setattr__`."""
    parameters, lines, known = ["self"], [], dict[str, Any]()
    for one in fields:
        name, value = one.name, one.name
        known[f"_set_{name}"] = getattr(cls, name).__set__
        if one.default is not dataclasses.MISSING:
            known[f"_else_{name}"] = one.default
        elif one.default_factory is not dataclasses.MISSING:
            known[f"_else_{name}"] = one.default_factory
            value = f"_else_{name}() if {name} is _else_{name} else {name}"
        parameters.append(f"{name}=_else_{name}" if f"_else_{name}" in known else name)
        lines.append(f"\n _set_{name}(self, {value})")
    exec(f"def __init__({', '.join(parameters)}):{''.join(lines) or ' pass'}", known)  # noqa: S102 # our own text
    made: Callable[..., None] = known["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__annotations__ = {one.name: one.type for one in fields} | {"return": None}
    return made


def _repr(names: Sequence[str]) -> Callable[[Any], str]:
    def shown(self: Any) -> str:
        said = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({said})"

    return shown


def _values(fields: Fields) -> Callable[[Any], tuple[Any, ...]]:
    """What takes these of an object. (No function: as an attribute of a class it would not be bound.)"""
    names = [one.name for one in fields]
    if len(names) > 1:
        return attrgetter(*names)
    return lambda self: tuple([getattr(self, name) for name in names])


def _eq(fields: Fields) -> Callable[[Any, object], bool]:
    values = _values([one for one in fields if one.compare])

    def equal(self: Any, other: object) -> bool:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    return equal


def _hash(fields: Fields) -> Callable[[Any], int]:
    values = _values([one for one in fields if (one.compare if one.hash is None else one.hash)])
    return lambda self: hash(values(self))


def _refuse_to_set(_self: Any, name: str, _value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(fields: Fields) -> Callable[[Any], tuple[Any, ...]]:
    values = _values(fields)

    def state(self: Any) -> tuple[Any, ...]:
        return values(self)

    return state


def _setstate(cls: type, fields: Fields) -> Callable[[Any, Sequence[Any]], None]:
    setters = [getattr(cls, one.name).__set__ for one in fields]

    def restore(self: Any, state: Sequence[Any]) -> None:
        for put, value in zip(setters, state, strict=True):
            put(self, value)

    return restore


if not TYPE_CHECKING:
    dataclass = _dataclass
