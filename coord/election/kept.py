"""What a role keeps, as the holder of a term reads and writes it: notes, and the ticks of a job."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from coord.core.election import Election
from coord.core.kept import Values, copy_notes
from coord.core.lease import LossReason
from coord.core.phases import HOLDING, Phase
from coord.core.timing import Instant
from coord.election.session import Session
from coord.errors import (
    CoordError,
    CoordinatorClosed,
    LeadershipLost,
    OutcomeUnknown,
    StaleToken,
    StoreUnavailable,
)

T = TypeVar("T")

READ_AGAIN_AFTER = 0.05
"""Seconds until the next read, after one that was older than the term."""


if TYPE_CHECKING:  # creating a Protocol takes as long as importing a small module

    class Writer(Protocol):
        """What sends the renewals of a candidate, such as an elector."""

        @property
        def election(self) -> Election:
            """The election of the candidate."""

        def send_what_is_due(self) -> None:
            """Look at the election again: it has something to send."""

        async def wait_until(self, predicate: Callable[[], bool]) -> None:
            """Wait until `predicate()` holds, or the candidate is done."""

    class TextHost(Protocol):
        """What opens the text of a term."""

        @property
        def loop(self) -> asyncio.AbstractEventLoop: ...

        def open_text(self, term: Any, /) -> KeptText: ...

    class HeldTerm(Protocol):
        """The term that the role is held under."""

        @property
        def role(self) -> str: ...

        @property
        def token(self) -> int: ...

        @property
        def reason(self) -> LossReason | None: ...

    class HasText(Protocol):
        """A term that remembers how it reads and writes what its role keeps."""

        _kept_text: KeptText | None


class KeptText:
    """The text that a role keeps, under one term. It lives on the loop of the elector.

    It is read once, under the token of the term. From then on nobody else can write it, so what
    this object has written last is what the role keeps.

    Args:
        session: The session of the elector.
        writer: The elector.
        term: The term.
    """

    __slots__ = (
        "_discarded",
        "_doubtful",
        "_lock",
        "_session",
        "_stored",
        "_term",
        "_values",
        "_writer",
    )

    def __init__(self, session: Session, writer: Writer, term: HeldTerm) -> None:
        self._session, self._writer, self._term = session, writer, term
        self._values: Values | None = None
        self._stored = Values({}, {})
        # The highest number of a text that was refused, so that later texts do not contain it; and
        # whether an earlier request may have written it all the same.
        self._discarded, self._doubtful = 0, False
        self._lock = asyncio.Lock()

    async def values(self) -> Values:
        """Return what the role keeps.

        Raises:
            BadArgument: The store keeps no texts.
            StaleToken: A newer term has begun before the first read.
            StoreUnavailable: The store did not answer in time, or showed an older row.
            StoreRefused: The store refuses, or somebody has damaged the text.
        """
        async with self._lock:
            if self._values is None:
                self._values = self._stored = await self._read()
            return self._values

    async def _read(self) -> Values:
        role, token = self._term.role, self._term.token
        until = self._session.now().awake + self._session.timeout
        while (kept := await self._session.kept(role)).token < token:
            if self._session.now().awake >= until:
                raise StoreUnavailable(
                    f"the store shows the role {role!r} as it was before token {token} was given"
                )
            await asyncio.sleep(READ_AGAIN_AFTER)
        if kept.token > token:
            raise StaleToken(f"what the role {role!r} keeps", token, kept.token)
        return Values.decode(role, kept.text)

    async def write(
        self,
        change: Callable[[Values], Values],
        *,
        send: Callable[[], None] | None = None,
        shows: Callable[[Values], bool | None] | None = None,
    ) -> None:
        """Let the role keep what `change` returns, and return when the store has acknowledged it.

        Several calls at a time may travel together. A call that is cancelled may have its effect.

        Args:
            change: Returns the new values for the present ones. What it raises is raised here, and
                nothing is written.
            send: Called to let the next request go out, such as a release; None means a renewal.
            shows: Returns whether what the role keeps now shows that this was written; None if it
                does not say. By default, the role keeps just this, or what it kept before.

        Raises:
            BadArgument: The store keeps no texts.
            LeadershipLost: The term is over, and this was not written.
            StaleToken: A newer term has begun, and this was not written.
            OutcomeUnknown: The store has not answered a request that may have written this.
            StoreUnavailable: What the role keeps could not be read. Nothing was written.
            StoreRefused: The store refuses, or somebody has damaged the text.
        """
        election, token = self._writer.election, self._term.token
        self._check(election, token)
        values = change(await self.values())
        # Nothing is awaited from here to the request: another call must not come in between.
        self._check(election, token)
        assert self._values is not None
        values = change(self._values)
        self._values = values
        number = election.keep(values.encode())
        (send or self._writer.send_what_is_due)()
        await self._writer.wait_until(lambda: self._settled(election, token, number))
        await self._raise_unless_stored(election, token, number, values, shows)
        self._stored = values

    def _check(self, election: Election, token: int) -> None:
        holds = election.phase in (Phase.LEADING, Phase.DRAINING) and election.token == token
        if not holds or self._session.now().total >= election.deadline:
            raise self._lost()

    def _settled(self, election: Election, token: int, number: int) -> bool:
        """Return whether it is known what became of a text, or nothing more will become known."""
        keeping = election.keeping
        # A newer text contains this one, so after a refusal that one may still be stored.
        if max(keeping.stored, self._discarded) >= number:
            return True
        if keeping.refused >= max(number, keeping.number):
            return True
        under_way = election.in_flight is not None and keeping.sent >= number
        return not under_way and not self._still_sent(election, token)

    def _still_sent(self, election: Election, token: int) -> bool:
        now: Instant = self._session.now()
        return election.keeping.text is not None and (
            election.token == token and election.phase in HOLDING and now.total < election.deadline
        )

    async def _raise_unless_stored(
        self,
        election: Election,
        token: int,
        number: int,
        values: Values,
        shows: Callable[[Values], bool | None] | None,
    ) -> None:
        keeping = election.keeping
        if keeping.stored >= number > self._discarded:
            return
        before, newest = self._stored, self._values or values
        if keeping.refused >= number > self._discarded:
            self._discarded, self._doubtful = keeping.refused, keeping.unknown > keeping.stored
            self._values = None  # it is read again before the next text
        if self._discarded >= number and not self._doubtful:
            assert keeping.refusal is not None
            raise keeping.refusal.error()
        if self._discarded < number and keeping.unknown < number:
            raise self._lost()
        role, url = self._term.role, self._session.store.url
        try:
            kept = await self._session.kept(role)
        except CoordError as err:
            raise OutcomeUnknown(
                f"cannot say whether {url} keeps what was written under token {token} of {role!r}: "
                f"it had not answered, and {err}"
            ) from None
        if shows is not None:
            written = shows(Values.decode(role, kept.text))
        elif kept.text in (values.encode(), newest.encode()):
            written = True
        else:
            written = False if kept.text == before.encode() else None
        if kept.token >= token and written:
            return
        if kept.token > token:  # what is late is refused from now on
            if written is False:
                raise StaleToken(f"what the role {role!r} keeps", token, kept.token)
            raise OutcomeUnknown(
                f"cannot say whether {url} kept what was written under token {token} of {role!r}: "
                f"token {kept.token} has written since"
            )
        raise OutcomeUnknown(
            f"cannot say whether {url} will keep what was written under token {token} of {role!r}: "
            "it has not answered, and the request may be late"
        )

    def _lost(self) -> LeadershipLost:
        term = self._term
        return LeadershipLost(term.role, term.token, term.reason or LossReason.EXPIRED)


class NotesAccess:
    """The notes of a term, for threads and for coroutines of any event loop.

    Args:
        host: Opens the text that the role keeps, once for a term.
        term: The term.
    """

    __slots__ = ("_host", "_loop", "_term")

    def __init__(self, host: TextHost, term: HasText) -> None:
        self._host, self._loop, self._term = host, host.loop, term

    @property
    def text(self) -> KeptText:
        """The text that the role keeps. Use it on the loop of the elector."""
        if self._term._kept_text is None:
            self._term._kept_text = self._host.open_text(self._term)
        return self._term._kept_text

    def write(self, changes: Mapping[str, Any]) -> None:
        """Write notes, and block this thread until the store has them."""
        self._call("note", lambda: self._write(changes))

    async def write_async(self, changes: Mapping[str, Any]) -> None:
        """Write notes, and return when the store has them."""
        await self._submit(lambda: self._write(changes))

    def read(self) -> dict[str, Any]:
        """Return the notes; blocks this thread."""
        return self._call("notes", self._read)

    async def read_async(self) -> dict[str, Any]:
        """Return the notes."""
        return await self._submit(self._read)

    async def _write(self, changes: Mapping[str, Any]) -> None:
        await self.text.write(lambda values: values.with_notes(changes))

    async def _read(self) -> dict[str, Any]:
        return copy_notes((await self.text.values()).notes)

    def _call(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if _running_loop() is self._loop:
            raise CoordError(
                f"cannot call term.{name}() on coord's event loop, which it would block: "
                f"await term.{name}_async()"
            )
        try:
            return self._on_loop(work).result()
        except concurrent.futures.CancelledError:
            raise _closed() from None

    async def _submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if asyncio.get_running_loop() is self._loop:
            return await work()
        return await asyncio.wrap_future(self._on_loop(work))

    def _on_loop(self, work: Callable[[], Coroutine[Any, Any, T]]) -> concurrent.futures.Future[T]:
        coroutine = work()
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise _closed() from None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _closed() -> CoordinatorClosed:
    return CoordinatorClosed("cannot use the notes of a term: its coordinator was closed")
