"""What can go wrong, as exceptions.

Everything that coord raises on purpose is a `CoordError`. Below it there are three families: the
caller's mistake (`BadArgument`), the store's trouble (`StoreUnavailable` passes by itself,
`StoreRefused` does not), and the election's plain answers (`NotLeader`, `LeadershipLost`,
`AcquireTimeout`, `StaleToken`).

No message holds a password: URLs are redacted before they come here, and a driver's own text, which
may hold the whole query, is never passed on."""

from __future__ import annotations


class CoordError(Exception):
    """The base of every exception that coord raises on purpose."""


class BadArgument(CoordError, ValueError):
    """An argument that cannot be used. Names the argument, the value and what is allowed, when it
    is given."""

    def __init__(self, argument: str, value: object, allowed: str) -> None:
        self.argument, self.value, self.allowed = argument, value, allowed
        shown = repr(value)
        if len(shown) > 80:
            shown = f"{shown[:60]}… ({len(shown)} characters)"
        super().__init__(f"{argument}: {shown} will not do; {allowed}")

    def __reduce__(self) -> tuple[type[BadArgument], tuple[str, object, str]]:
        return type(self), (self.argument, self.value, self.allowed)


class StoreUnavailable(CoordError):
    """The store did not answer in time, or says that it cannot serve just now. Trying again later
    may help."""


class StoreRefused(CoordError):
    """The store answered, and will go on saying no until somebody changes something (see the
    message)."""


class NotSetUp(StoreRefused):
    """The database lacks what coord needs, or has it half made. The message names the command that
    mends it."""


class AccessDenied(StoreRefused):
    """Wrong user or password, a missing permission, a file that may not be written."""


class NotLeader(CoordError):
    """This candidate does not lead the role."""

    def __init__(self, role: str, detail: str = "") -> None:
        self.role = role
        super().__init__(f"not the leader of {role!r}{': ' + detail if detail else ''}")


class LeadershipLost(CoordError):
    """The term that this work was done under has ended. `reason` is a `coord.LossReason`."""

    def __init__(self, role: str, token: int, reason: object) -> None:
        self.role, self.token, self.reason = role, token, reason
        super().__init__(
            f"lost the leadership of {role!r} (token {token}): {getattr(reason, 'value', reason)}"
        )

    def __reduce__(self) -> tuple[type[LeadershipLost], tuple[str, int, object]]:
        return type(self), (self.role, self.token, self.reason)


class AcquireTimeout(CoordError, TimeoutError):
    """The role could not be had within the time given."""

    def __init__(self, role: str, seconds: float, detail: str = "") -> None:
        self.role, self.seconds = role, seconds
        super().__init__(
            f"did not become the leader of {role!r} within {seconds:g} s{': ' + detail if detail else ''}"
        )


class StaleToken(CoordError):
    """A protected resource has seen a newer fencing token than the one that this write carries
    (rule 10)."""

    def __init__(self, resource: str, token: int, newest: int | None = None) -> None:
        self.resource, self.token, self.newest = resource, token, newest
        seen = "a newer one" if newest is None else f"token {newest}"
        super().__init__(f"{resource} refuses token {token}: it has already seen {seen}")
