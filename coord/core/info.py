"""What a leader says about itself during its term: which changes the store has acknowledged, and
which changes others have seen.

Both classes are immutable values, like everything that the state machine keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from coord.core.lease import Lease, shared_info

Info = Mapping[str, Any]


def same_info(first: Info, second: Info) -> bool:
    """Return whether two infos are the same JSON, where `true` is not `1` as it is in Python."""
    if first is second:
        return True
    if first != second:
        return False
    pairs: list[tuple[Any, Any]] = [(first, second)]
    while pairs:  # no recursion: somebody may store a deeply nested info
        part, counterpart = pairs.pop()
        if isinstance(part, Mapping):
            pairs.extend((value, counterpart[key]) for key, value in part.items())
        elif isinstance(part, (list, tuple)):
            pairs.extend(zip(part, counterpart, strict=True))
        elif isinstance(part, bool) is not isinstance(counterpart, bool):
            return False
    return True


class InfoUpdates(NamedTuple):
    """The changes of a candidate's info, numbered from 1, and how far the store has them.

    Attributes:
        changes: How many there were so far.
        sent: The number of the last change that the last renewal covered.
        stored: The number of the last change that the store has acknowledged.
        unanswered: The number of the last change that was sent and not acknowledged. The next
            renewal carries it again.
        row_info: What the row says; None if that is not known.
    """

    changes: int = 0
    sent: int = 0
    stored: int = 0
    unanswered: int = 0
    row_info: Info | None = None

    def changed(self) -> InfoUpdates:
        """The candidate has changed its info."""
        return self._replace(changes=self.changes + 1)

    def elected(self, info: Info, lease: Lease) -> InfoUpdates:
        """A claim with `info` was applied, and resulted in this lease."""
        stored = shared_info(lease)
        row_info = info if same_info(stored, info) else stored
        return type(self)(self.changes, self.sent, self.stored, self.unanswered, row_info)

    def sending(self, info: Info) -> tuple[InfoUpdates, Info | None]:
        """A renewal is about to be sent while the candidate wants to say `info`.

        Returns:
            The new state, and the info that the renewal must carry; None if the row says it
            already.
        """
        if self.row_info is not None and same_info(info, self.row_info):
            return (self if self.sent == self.changes else self._replace(sent=self.changes)), None
        # Until the answer nobody knows what the row says. Without an answer, a later renewal
        # carries the info again, even if it is the one from before the change.
        return self._replace(sent=self.changes, row_info=None), info

    def answered(self, carried: Info | None, applied: bool) -> InfoUpdates:
        """The last renewal was answered; it carried this info (None: no info)."""
        if not applied:
            return self.failed()
        if carried is None:
            return self if self.stored == self.sent else self._replace(stored=self.sent)
        return self._replace(stored=self.sent, row_info=carried)

    def failed(self) -> InfoUpdates:
        """The last renewal was not applied, or its outcome is unknown."""
        return self._replace(unanswered=self.sent)


class ObservedInfo(NamedTuple):
    """What the leader of a role said last, as another candidate sees it.

    Attributes:
        info: The info; empty if no row of this term has carried it so far.
    """

    info: Info = MappingProxyType({})

    def after(self, lease: Lease, same_term: bool) -> tuple[ObservedInfo, bool]:
        """Take a row of the role.

        A feed may leave the info out, so an empty one says nothing, and the first info of a term is
        no change.

        Args:
            lease: The row.
            same_term: Whether the last row was one of the same term.

        Returns:
            The new state, and whether the leader has changed its info during its term.
        """
        info = shared_info(lease)
        if not same_term:
            return ObservedInfo(info), False
        if not info or same_info(info, self.info):
            return self, False
        return ObservedInfo(info), bool(self.info)
