"""The settings of a candidate that an elector runs, apart from its role and its callbacks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from coord.core import validation
from coord.core.timing import Timing


class CandidateOptions(NamedTuple):
    """The settings of a candidate, validated. All durations are in seconds; `AsyncLeadership`
    explains each. `slot` is the number of the slot whose role it is; None for another role."""

    timing: Timing
    info: Mapping[str, Any]
    drain_timeout: float
    at_most: float | None
    token_floor: int
    priority: int
    min_tenure: float
    slot: int | None = None

    @property
    def stop_timeout_of_several(self) -> float:
        """Seconds that a candidate for several leases may take from `stop` until it is done."""
        return self.drain_timeout + 3 * self.timing.attempt_timeout

    @classmethod
    def validated(
        cls,
        timing: Timing,
        *,
        info: Mapping[str, Any] | None,
        drain_timeout: float | None,
        at_most: float | None,
        token_floor: int,
        priority: int,
        min_tenure: float | None,
    ) -> CandidateOptions:
        """Check the settings and fill in the defaults. Candidates with the same settings and
        without an info share one object.

        Raises:
            BadArgument: A setting is invalid.
        """
        options = _validated(
            timing,
            drain_timeout=drain_timeout,
            at_most=at_most,
            token_floor=token_floor,
            priority=priority,
            min_tenure=min_tenure,
        )
        return options if info is None else options._replace(info=validation.info(info))


@validation.shared
def _validated(
    timing: Timing,
    *,
    drain_timeout: float | None,
    at_most: float | None,
    token_floor: int,
    priority: int,
    min_tenure: float | None,
) -> CandidateOptions:
    return CandidateOptions(
        timing=timing,
        info={},
        drain_timeout=validation.drain_timeout(drain_timeout, timing.ttl),
        at_most=validation.at_most(at_most),
        token_floor=validation.token_floor(token_floor),
        priority=validation.priority(priority),
        min_tenure=validation.min_tenure(min_tenure, timing.ttl),
    )


def new_candidate_id() -> str:
    """Return a new random id for one incarnation of a candidate."""
    return os.urandom(16).hex()  # importing the module `uuid` is slow
