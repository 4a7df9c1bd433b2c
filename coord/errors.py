"""The exceptions of coord.

Everything that coord raises on purpose is a `CoordError`. There are three families: invalid
arguments (`BadArgument`), problems of the store (`StoreUnavailable` can pass by itself,
`StoreRefused` cannot), and answers of the election (`NotLeader`, `LeadershipLost`,
`AcquireTimeout`, `StaleToken`).

No message contains a password. URLs are redacted before they are passed to an exception, and the
text of a driver's exception, which may contain the whole query, is never passed on.
"""

from __future__ import annotations

from typing import Any, TypeVar

E = TypeVar("E", bound="CoordError")

MAX_VALUE_LENGTH = 80
"""Characters of an invalid value that a message shows."""


def command(words: str, *arguments: object) -> str:
    """Return a command line for a message, which a shell can run.

    Args:
        words: The name of the command, and the options before the arguments.
        arguments: Roles, URLs and other words, which are quoted. None of them is an option.
    """
    texts = [str(argument) for argument in arguments]
    dashes = ["--"] if any(text.startswith("-") for text in texts) else []
    return " ".join(["coord", words, *dashes, *map(_quoted, texts)])


def _quoted(word: str) -> str:
    import shlex  # few programs print such a message

    if word.isprintable():
        return shlex.quote(word)
    escaped = (
        char if char.isprintable() and char not in "\\'" else f"\\U{ord(char):08x}" for char in word
    )
    return f"$'{''.join(escaped)}'"


class CoordError(Exception):
    """The base of every exception that coord raises on purpose.

    Every exception of coord can be pickled, with its message and its attributes, so that it can
    pass from one process to another.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # The constructors of the subclasses take other arguments than the message in `args`.
        return _restore, (type(self), self.args), self.__dict__


def with_message(kind: type[E], message: str) -> E:
    """Return an exception of this kind, whose constructor may take other arguments: a store may
    raise its own subclasses."""
    return _restore(kind, (message,))


def _restore(kind: type[E], args: tuple[Any, ...]) -> E:
    """Create an exception with this message, without a call of its constructor."""
    error = kind.__new__(kind, *args)
    error.args = args  # `OSError.__new__` leaves this to the constructor
    return error


class BadArgument(CoordError, ValueError):
    """An argument is invalid. The message names the argument, its value and what is allowed.

    Args:
        argument: The name of the argument.
        value: The value that the caller gave. The message shows at most 80 characters of it.
        allowed: What is allowed, as the end of the sentence: "must be …".
    """

    def __init__(self, argument: str, value: object, allowed: str) -> None:
        self.argument, self.value, self.allowed = argument, value, allowed
        shown = repr(value)
        if len(shown) > MAX_VALUE_LENGTH:
            shown = f"{shown[: MAX_VALUE_LENGTH - 1]}…"
        super().__init__(f"invalid {argument} {shown}: {allowed}")

    def __reduce__(self) -> tuple[Any, ...]:
        import pickle  # few programs need it

        fields = dict(self.__dict__)
        try:
            pickle.dumps(self.value)
        except Exception:  # whatever the value raises: the error must reach the other process
            fields["value"] = repr(self.value)
        return _restore, (type(self), self.args), fields


class StoreUnavailable(CoordError):
    """The store did not answer in time, or cannot serve requests now. A retry may succeed."""


class OutcomeUnknown(StoreUnavailable):
    """The store did not answer a change that may have been applied, or may be applied later (rule
    8)."""


class StoreRefused(CoordError):
    """The store answered, and refuses until somebody fixes what the message describes."""


class NotSetUp(StoreRefused):
    """The database lacks tables or a schema. The message names the command that creates them."""


class AccessDenied(StoreRefused):
    """The user or password is wrong, a permission is missing, or a file is not writable."""


class CoordinatorClosed(CoordError):
    """The coordinator was closed, or belongs to an event loop that has ended."""


class NotLeader(CoordError):
    """The candidate is not the leader of the role.

    Args:
        role: The role.
        detail: The reason, for people; "" adds nothing to the message.
    """

    def __init__(self, role: str, detail: str = "") -> None:
        self.role = role
        super().__init__(f"not the leader of {role!r}{': ' + detail if detail else ''}")


class LeadershipLost(CoordError):
    """The term that the work ran under has ended.

    Args:
        role: The role.
        token: The fencing token of the term.
        reason: Why the term ended, a `coord.LossReason`.
    """

    def __init__(self, role: str, token: int, reason: object) -> None:
        self.role, self.token, self.reason = role, token, reason
        super().__init__(
            f"lost the leadership of {role!r} (token {token}): {getattr(reason, 'value', reason)}"
        )


class TickTooOld(CoordError):
    """A tick of a job is not run: it is too late for it, or nobody knows whether it was run.

    Args:
        job: The role of the job.
        tick: The tick.
        detail: The reason, for people.
    """

    def __init__(self, job: str, tick: object, detail: str) -> None:
        self.job, self.tick = job, tick
        super().__init__(f"cannot run tick {tick} of {job!r}: {detail}")


class TickUnfinished(CoordError):
    """A run of a tick began, did not end, and must not be repeated (`retry=False`).

    Args:
        job: The role of the job.
        tick: The tick.
        token: The fencing token that the run began under.
        at: When it began: wall time, in seconds since 1970.
    """

    def __init__(self, job: str, tick: object, token: int, at: float) -> None:
        self.job, self.tick, self.token, self.at = job, tick, token, at
        super().__init__(
            f"cannot run tick {tick} of {job!r}: a run began under token {token} and was not "
            "recorded as finished; look at what it did, and run the tick with retry=True (without "
            "--no-retry) if it must be repeated"
        )


class TooManyRoles(CoordError):
    """A decorated function whose role depends on its arguments has too many roles at a time.

    Args:
        role: The role of the call.
        most: How many the process may keep (`max_roles`).
    """

    def __init__(self, role: str, most: int) -> None:
        self.role, self.most = role, most
        super().__init__(
            f"cannot be a candidate for {role!r}: this process keeps {most} roles of the function "
            'and leads or uses all of them; use scope="call", or raise max_roles'
        )


class AcquireTimeout(CoordError, TimeoutError):
    """The candidate did not become the leader in time.

    Args:
        role: The role.
        seconds: The timeout, in seconds.
        detail: The reason, for people; "" adds nothing to the message.
    """

    def __init__(self, role: str, seconds: float, detail: str = "") -> None:
        self.role, self.seconds, self.detail = role, seconds, detail
        super().__init__(
            f"did not become the leader of {role!r} within {seconds:g} s"
            f"{': ' + detail if detail else ''}"
        )


class SharesDiffer(CoordError):
    """The members of a group must share the same shards, and this one was given others.

    Args:
        group: The group.
        there: What the other members share, for people.
        here: What this member was given, for people.
    """

    def __init__(self, group: str, there: str, here: str) -> None:
        self.group, self.there, self.here = group, there, here
        super().__init__(
            f"cannot join the group {group!r}: its members share {there}, and this one {here}; use "
            "the same shards, or another name for the group"
        )


class SlotsDiffer(CoordError):
    """A role has another number of slots than this candidate was given.

    Args:
        role: The role.
        there: The number of slots of the role.
        here: The number that this candidate was given.
    """

    def __init__(self, role: str, there: object, here: int) -> None:
        self.role, self.there, self.here = role, there, here
        super().__init__(
            f"cannot be a candidate for {here} slots of {role!r}: the role has {there}; use that "
            f"number, or change it with: {command('slots', role, here)}"
        )


class StaleToken(CoordError):
    """A protected resource refused a write, because it has seen a newer fencing token (rule 10).

    Args:
        resource: The resource, for people.
        token: The fencing token of the refused write.
        newest: The newest token that the resource has seen; None if it is not known.
    """

    def __init__(self, resource: str, token: int, newest: int | None = None) -> None:
        self.resource, self.token, self.newest = resource, token, newest
        newer = "a newer one" if newest is None else f"token {newest}"
        super().__init__(f"{resource} refuses token {token}: it has already seen {newer}")
