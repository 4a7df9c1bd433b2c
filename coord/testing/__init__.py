"""The public test kit. Nothing of it is imported before it is asked for: coord itself needs no pytest or hypothesis."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coord.testing.contract import StoreContract

_WHERE = {
    "StoreContract": "coord.testing.contract",
}

__all__ = ["StoreContract"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
