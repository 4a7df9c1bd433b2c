"""A request to a database server that got no usable answer."""

from __future__ import annotations

from coord.core.operations import Failure
from coord.errors import StoreRefused, StoreUnavailable


class RequestError(Exception):
    """A request without a usable answer. It never leaves a store.

    Attributes:
        detail: What happened, for people, without secrets.
        unknown: Whether the request may have been applied, or may still be.
        retryable: Whether another try, on another connection or server, may succeed at once. A
            change is repeated only if it is not `unknown`.
        refusal: The exception of a refusal that lasts until somebody fixes something; None if the
            server may answer at the next try.
    """

    def __init__(
        self,
        detail: str,
        *,
        unknown: bool,
        retryable: bool = False,
        refusal: type[StoreRefused] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail, self.unknown, self.retryable = detail, unknown, retryable
        self.refusal = refusal

    def failure(self) -> Failure:
        """Return the result of a swap."""
        return Failure(unknown=self.unknown, detail=self.detail, refusal=self.refusal)

    def error(self) -> StoreRefused | StoreUnavailable:
        """Return the exception of a read."""
        return self.failure().error()


def lost(server: str, reason: str) -> RequestError:
    """Return the error of a request that was sent and got no answer."""
    return RequestError(f"no answer from {server}: {reason}", unknown=True)


def unreachable(server: str, reason: str, *, retryable: bool = True) -> RequestError:
    """Return the error of a request that could not be sent."""
    return RequestError(f"cannot reach {server}: {reason}", unknown=False, retryable=retryable)


def damaged(role: str) -> RequestError:
    """Return the error of a lease that coord did not write."""
    return RequestError(f"the row of {role!r} is damaged", unknown=False, refusal=StoreRefused)


def closed() -> RequestError:
    """Return the error of a request after the store was closed."""
    return RequestError("the store is closed", unknown=False)
