"""Sequential models: what the operations of a history do when they run one after the other, for the
lease of a role and for a fenced resource."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from coord.core.lease import PAUSED, REVOKED, Revision
from coord.testing.history.events import Operation

EMPTY = Revision(None, 0, 0)
WITHHELD = frozenset({REVOKED, PAUSED})
"""The holders of rows that an operator keeps from all candidates."""


def revision(row: Any) -> Revision:
    """Return a row of a history as a value.

    Args:
        row: [holder, token, beat]; None for a role without a row.
    """
    return EMPTY if row is None else Revision(*row)


class LeaseRegister:
    """The row of one role.

    The model has no time: `exclusion` checks whether a lease had run out.

    Args:
        edited: Whether the history has writes by hand (`put`). After one, any operation with an
            unknown outcome may take effect again.
        shown: For a store that may raise tokens by itself, the tokens that answers of the history
            show, by holder: a claim whose answer is not known may have got any of them. None for
            a store that gives each claim the next token.
        floors: Whether the store may raise any token. Otherwise only the first row of a role may
            have a raised token, above that of a retired role whose name begins alike.
        retired: Whether rows of the history were retired.
    """

    initial = EMPTY

    def __init__(
        self,
        edited: bool = False,
        shown: Mapping[str, Collection[int]] | None = None,
        *,
        floors: bool = True,
        retired: bool = False,
    ) -> None:
        self._edited, self._shown = edited, shown
        self._floors, self._retired = floors, retired

    def after(self, state: Revision, operation: Operation) -> Iterable[Revision]:
        """Return the rows that `operation` may leave behind; see `Register.after`."""
        args, result = operation.args, operation.result
        if operation.action == "put":
            return [revision(args["row"])]
        if operation.action == "read":
            return [state] if operation.outcome == "ok" and revision(result["row"]) == state else []
        if operation.action == "lose":
            return [revision(args["row"])] if revision(args["released"]) == state else []
        if operation.action == "retire":
            deleted = state.holder is None and state == revision(args["expected"])
            if operation.outcome == "unknown" or result["applied"]:
                return [EMPTY] if deleted else []
            return [state]  # it may keep a text, or not be old enough
        changed, must = self._changed(state, operation)
        if changed is not None and self._may_be_raised(state, operation):
            assert self._shown is not None
            if operation.outcome == "unknown":
                higher = (t for t in self._shown.get(args["holder"], ()) if t > changed.token)
                return [changed, *(changed._replace(token=token) for token in higher)]
            if result["applied"]:
                changed = changed._replace(token=max(changed.token, revision(result["row"]).token))
        if operation.outcome == "unknown":
            return [] if changed is None else [changed]
        if result["applied"]:
            return [changed] if changed is not None and revision(result["row"]) == changed else []
        return [] if must or revision(result["row"]) != state else [state]

    def _may_be_raised(self, state: Revision, operation: Operation) -> bool:
        """Return whether the store may give the new row a higher token than the next one."""
        if self._shown is None or operation.action not in ("claim", "override"):
            return False
        return state == EMPTY or (operation.action == "claim" and self._floors)

    def _changed(self, state: Revision, operation: Operation) -> tuple[Revision | None, bool]:
        """Return the row that the operation may write, None if it may not write, and whether it
        must write. A claim may depend on the store's clock, so that both are right."""
        args = operation.args
        if operation.action == "override":
            if revision(args["expected"]) != state:
                return None, False
            return Revision(args["holder"], state.token, args["beat"]), True
        if operation.action == "claim":
            expected = args.get("expected")
            if state.holder == PAUSED or (expected is not None and revision(expected) != state):
                return None, False
            of_holder = state.holder == args["holder"] and args["beat"] > state.beat
            must = state.holder is None or of_holder or bool(args.get("takeover"))
            if not must and args.get("skew") is None:
                return None, False
            return Revision(
                args["holder"], max(state.token, args.get("floor", 0)) + 1, args["beat"]
            ), must
        of_holder = (state.holder, state.token) == (args["holder"], args["token"])
        if not of_holder or args["beat"] <= state.beat:
            return None, False
        if (
            operation.action == "release"
            and args.get("to") is not None
            and args.get("linger", 0) > 0
        ):
            return Revision(args["to"], state.token, 0), True
        keeps = operation.action == "renew" or args.get("linger", 0) > 0
        return Revision(state.holder if keeps else None, state.token, args["beat"]), True

    def spent(self, state: Revision, operation: Operation) -> bool:
        """Return whether `operation` can never write a row again; see `Register.spent`."""
        args = operation.args
        if operation.action == "read":
            return True
        if operation.action == "lose":
            return bool(args["released"][1] < state.token)
        if self._edited or operation.action == "put":
            return False
        if operation.action in ("claim", "override", "retire"):
            expected = args.get("expected")
            if expected is None:
                return False
            # A retired row is missing again.
            missing = self._retired and revision(expected) == EMPTY
            return not missing and _never_again(revision(expected), state)
        if args["token"] != state.token:
            return bool(args["token"] < state.token)
        if state.holder != args["holder"]:
            # Otherwise the role may still be handed over to that holder.
            return state.holder is None or state.holder in WITHHELD
        return bool(args["beat"] <= state.beat)


def _never_again(old: Revision, state: Revision) -> bool:
    """Return whether no swap can produce the row `old` again.

    With the same token, a holder only increases the beat. It may then hand over, and the new holder
    begins at beat 0. Once the role is vacant or withheld, the next candidate gets a higher token.
    """
    if old.token != state.token:
        return old.token < state.token
    if state.holder in WITHHELD:
        return old.holder not in WITHHELD
    if state.holder is None:
        return old.beat < state.beat
    return old.holder == state.holder and old.beat < state.beat


class FencedResource:
    """A resource that keeps the newest token. It must refuse writes with older tokens, and no
    others."""

    initial = 0

    def after(self, state: int, operation: Operation) -> Iterable[int]:
        """Return the newest tokens that are possible after `operation`; see `Register.after`."""
        token = int(operation.args["token"])
        if operation.outcome == "unknown":
            return [token] if token >= state else []
        if operation.result["accepted"]:
            return [token] if token >= state else []
        return [state] if token < state else []

    def spent(self, state: int, operation: Operation) -> bool:
        """Return whether `operation` can never change the newest token; see `Register.spent`."""
        return int(operation.args["token"]) <= state
