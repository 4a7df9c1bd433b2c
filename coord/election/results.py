"""What a candidate makes of the results of its requests, and of a store that raises."""

from __future__ import annotations

from coord.core.actions import Send
from coord.core.operations import Answer, Claim, Failure, Result
from coord.election.session import Session
from coord.runtime import log
from coord.runtime.retry import full_jitter
from coord.stores.requests import PendingResult


def send_now(session: Session, send: Send) -> PendingResult:
    """Send it in this very iteration of the loop, if that can be done; what to await, or None."""
    try:
        return session.send_now(send.operation, send.timeout)
    except Exception:  # then it is submitted as usual, which survives whatever the store raises
        return None


def refused_claim(send: Send, result: Result) -> bool:
    """Return whether the store answered a claim, and did not grant it."""
    claim = isinstance(send.operation, Claim)
    return claim and isinstance(result, Answer) and not result.applied


def store_failed(err: Exception, role: str) -> Failure:
    """Turn what a store raised into an unknown outcome: a candidate survives whatever a store
    does."""
    log.error("store.misbehaved", err, role=role)
    return Failure(unknown=True, detail=type(err).__name__)


def retry_delay(result: Result, failures: int, ttl: float) -> float:
    """Return the seconds until the next try; 0 if there was an answer.

    Args:
        result: The result of the last request.
        failures: How many requests in a row have failed, this one included.
        ttl: The ttl of the lease, in seconds.
    """
    if not isinstance(result, Failure):
        return 0.0
    return ttl / 3 if result.permanent else full_jitter(failures, 0.05, min(5.0, ttl / 3))
