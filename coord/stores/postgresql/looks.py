"""When a feed looks at its rows: soon after each renewal, and at most at a fixed rate.

A renewal is not notified, so a feed sees it when it looks. A candidate counts the ttl from when it
saw the last renewal (rule 4), so each second between a renewal and the look is a second without a
leader after a crash. But renewals are regular: each row says how old its last one is, and two of
them say how far apart they are. So the next look is planned for a moment after the next renewal.

The plan decides nothing. If a row or the server's clock is wrong, a look comes too early or as late
as without the plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from coord.core.lease import Lease, Revision

RENEWALS_PER_TTL = 3
"""Renewals within a ttl, until two of them have been seen."""
MIN_PERIOD = 0.1
"""Seconds between two renewals, at least."""
TOGETHER = 0.05
"""Seconds within which expected renewals share a look."""
MAX_MISSES = 3
"""Looks that are planned for one renewal. Each waits three times as long as the one before."""
BURST = 2.0
"""Looks that may follow each other at once, after a time without any."""


@dataclass(slots=True)
class _Row:
    """What is known about one role.

    Attributes:
        revision: Its revision, as it was seen last.
        written: When that was written, by the clock of the loop.
        period: Seconds between two renewals.
        misses: Looks for the next renewal that came too early.
    """

    revision: Revision
    written: float
    period: float
    misses: int = 0


class LookSchedule:
    """Plans the looks of one feed. All times are in seconds by the clock of the loop.

    Args:
        slack: Seconds after an expected renewal until the look. Many feeds that watch one role
            should not look at the same moment, so each draws its own.
    """

    def __init__(self, slack: float) -> None:
        self._slack = slack
        self._rows: dict[str, _Row] = {}
        self._looked_at = float("-inf")
        self._budget = BURST

    def saw(self, lease: Lease, now: float) -> None:
        """Learn from a row that a look showed at `now`."""
        row = self._rows.get(lease.role)
        if lease.vacant or lease.withheld or lease.remaining <= 0:
            self._rows.pop(lease.role, None)
        elif row is not None and row.revision == lease.revision:
            if now >= self._expected(row):
                row.misses += 1
        else:
            written = now - max(lease.ttl - lease.remaining, 0.0)
            period = lease.ttl / RENEWALS_PER_TTL
            if row is not None and row.revision[:2] == lease.revision[:2]:
                # The holder counts its requests, so the beats say how many renewals there were.
                requests = max(lease.beat - row.revision.beat, 1)
                period = (written - row.written) / requests
            period = min(max(period, MIN_PERIOD), lease.ttl)
            self._rows[lease.role] = _Row(lease.revision, written, period)

    def forget(self, role: str) -> None:
        """The row of a role was deleted."""
        self._rows.pop(role, None)

    def looked(self, now: float, interval: float) -> None:
        """Count a look at all rows at `now`; on average there may be one in each `interval`."""
        refilled = self._budget + max(now - self._looked_at, 0.0) / interval
        self._budget = max(min(refilled, BURST) - 1.0, 0.0)
        self._looked_at = now

    def next_look(self, interval: float) -> float:
        """Return when to look at all rows again, given the longest usual time between two looks."""
        usual = self._looked_at + interval
        # A look may be early if others were late.
        allowed = self._looked_at + max(1.0 - self._budget, 0.0) * interval
        expected = []
        for row in self._rows.values():
            due = self._expected(row)
            if due > self._looked_at:
                # Renewals that come faster than looks are allowed are seen at every second or third
                # of them.
                skipped = max(math.ceil((allowed - due) / row.period), 0)
                expected.append(due + skipped * row.period)
        if not expected:
            return usual
        group_ends = min(expected) + TOGETHER
        due = max(due for due in expected if due <= group_ends)
        # The looks until then are spread evenly, and no closer than usual.
        remaining = due - self._looked_at
        return self._looked_at + remaining / max(int(remaining / interval), 1)

    def _expected(self, row: _Row) -> float:
        """Return when the look for the next renewal of a row is due; in the past if it was in
        vain."""
        if row.misses >= MAX_MISSES:
            return float("-inf")
        return row.written + row.period + self._slack * 3.0**row.misses
