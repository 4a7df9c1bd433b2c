"""Rule 9: a forked child drops every term, connection and id. One counter says in which process we are."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

epoch = 0
"""One up in every forked child. What was made under another epoch belongs to the parent."""


class Forkable(Protocol):
    def after_fork(self) -> None:
        """Called in the child, before any other code of it: forget, touch nothing, raise nothing."""


_known: weakref.WeakSet[Forkable] = weakref.WeakSet()


def watch(thing: Forkable) -> None:
    """Have `thing.after_fork` called in every child of this process, for as long as somebody holds it."""
    _known.add(thing)


def _in_child() -> None:
    global epoch
    epoch += 1
    for thing in list(_known):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
