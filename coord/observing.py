"""Who is told how elections go, for figures: nobody, until somebody asks (`coord.metrics`). Off, it costs one look."""

from __future__ import annotations

from typing import Protocol

from coord.lease import LossReason
from coord.term import Term


class Observer(Protocol):
    """Called on coord's loop, between two requests: it must be quick, and must not raise."""

    def elected(self, term: Term) -> None:
        """A term begins."""

    def lost(self, term: Term, reason: LossReason) -> None:
        """A term has ended."""

    def renewed(self, term: Term, latency: float, left: float) -> None:
        """A renewal was answered, `latency` seconds after it was sent and `left` seconds before the term's deadline."""


observer: Observer | None = None
"""The one that is told. Set by `coord.metrics.enable`."""
