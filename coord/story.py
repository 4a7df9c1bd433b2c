"""One role as it is told to people and caches: which row counts, when it runs out, whether who leads has changed."""

from __future__ import annotations

from dataclasses import replace

from coord.lease import Lease


class Story:
    """Takes rows as they are read or shown by a feed, in any order and repeated. `now` is a clock of this process."""

    def __init__(self) -> None:
        self._row: Lease | None = None
        self._told: tuple[str | None, int] | None = None
        self.runs_out = 0.0
        """When the lease runs out, on that clock, if nobody prolongs it."""

    @property
    def leads(self) -> bool:
        """Whether somebody was said to lead, when it was last asked whether that has changed."""
        return self._told is not None

    def saw(self, row: Lease, now: float) -> bool:
        """Take in what came at `now`; whether somebody else led then, or nobody, than was told last."""
        if self._row is None or not row.older_than(self._row):
            runs_out = now + row.remaining
            if self._row is not None and row.sight == self._row.sight:
                # A feed without a clock gives every row its whole ttl: who has seen this write before knows better.
                runs_out = min(runs_out, self.runs_out)
            self._row, self.runs_out = row, runs_out
        return self.changed(now)

    def changed(self, now: float) -> bool:
        """Whether that is so by `now` alone: a lease may have run out with nobody to take it."""
        leader = self.leader(now)
        who = None if leader is None else (leader.holder, leader.token)
        before, self._told = self._told, who
        return who != before

    def leader(self, now: float) -> Lease | None:
        """Who leads at `now`."""
        row = self._row
        if row is None or row.vacant or row.reserved or self.runs_out <= now:
            return None
        return replace(row, remaining=self.runs_out - now)
