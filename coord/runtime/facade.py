"""Synchronous classes in front of asynchronous ones: each method runs on the loop of a portal."""

from __future__ import annotations

import asyncio
import functools
import inspect
from abc import ABCMeta
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec, Protocol, TypeVar, cast

from coord.runtime.portal import Portal

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)
P = ParamSpec("P")
T = TypeVar("T")


if TYPE_CHECKING:
    _ProtocolType = ABCMeta  # that is how type checkers see the metaclass of protocols
else:
    _ProtocolType = type(Protocol)


class _PublicDirType(_ProtocolType):
    """Makes `dir()` of a class list only what is public: `help()` and the completion of the Python
    prompt look there.

    It is the type of protocols, which is an `ABCMeta`, so that a subclass may implement protocols
    and be an abstract class as well. Python allows no class with two metaclasses of which none
    inherits from the other.
    """

    _internal: frozenset[str]
    # Those of protocols are slower, and before Python 3.12 fail for classes that inherit from none.
    __instancecheck__ = ABCMeta.__instancecheck__
    __subclasscheck__ = ABCMeta.__subclasscheck__

    def __dir__(cls) -> list[str]:  # noqa: N805 # ruff does not see that it is a metaclass
        return _public(super().__dir__(), cls._internal)


class PublicDir(metaclass=_PublicDirType):
    """Makes `dir()` of a class and of its instances list only what is public.

    The packages of coord share more names than that, which a completion would offer to users. A
    class names them as it is defined: `class Coordinator(PublicDir, internal=("session",))`.
    """

    __slots__ = ()
    _internal: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, *, internal: Collection[str] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._internal |= frozenset(internal)

    def __dir__(self) -> list[str]:
        return _public(super().__dir__(), self._internal)


def _public(names: Iterable[str], internal: frozenset[str]) -> list[str]:
    return [
        name
        for name in names
        if name not in internal and (name.startswith("__") or not name.startswith("_"))
    ]


class ClosesInThread(Protocol):
    """Something with a thread of its own, which ends before the store is closed."""

    def halt(self) -> None:
        """Ask the thread to end. Returns at once."""

    def join(self) -> None:
        """Wait until the thread has ended."""

    async def unregister(self) -> None:
        """Remove it from the store. Called on the portal's loop."""


class HasPortal(Protocol):
    """What the sync classes need of the object whose thread they work on, such as a coordinator."""

    portal: Portal
    on_close: set[ClosesInThread]

    def close_quickly(self) -> None:
        """Close within a few seconds, because the process ends. Raises nothing."""


def end_threads(host: HasPortal) -> None:
    """End everything in `host.on_close`: first all threads, then all registrations at once."""
    ending = tuple(host.on_close)
    for thing in ending:
        thing.halt()
    for thing in ending:
        thing.join()
    if ending:
        host.portal.call(functools.partial(_unregister_all, ending))


async def _unregister_all(things: tuple[ClosesInThread, ...]) -> None:
    await asyncio.gather(*(thing.unregister() for thing in things))


class Facade(Protocol[A_co]):
    """A sync object in front of an async one, which lives on the loop of a portal."""

    @property
    def portal(self) -> Portal:
        """The portal on whose loop the async object lives."""

    @property
    def inner(self) -> A_co:
        """The async object."""


def blocking(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Facade[A], P], T]:
    """Return the sync twin of an async method. It runs on the portal, and blocks until it returns.

    `wait = blocking(AsyncLeadership.wait)` in the body of a facade has the name, the parameters,
    the types and the docstring of `AsyncLeadership.wait`."""

    @functools.wraps(method)
    def call(self: Facade[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.portal.call(functools.partial(method, self.inner, *args, **kwargs))

    return _as_method(call, method)


def iterating(
    method: Callable[Concatenate[A, P], AsyncIterator[T]],
) -> Callable[Concatenate[Facade[A], P], Iterator[T]]:
    """Return the sync twin of a method that returns an async iterator: it returns a plain iterator.

    Arguments are checked by the call itself, not by the first step of the iterator.
    """

    @functools.wraps(method)
    def call(self: Facade[A], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self.portal.iterate(method(self.inner, *args, **kwargs), owner=self)

    return _as_method(call, method)


def _as_method(call: Callable[P, T], method: Callable[..., Any]) -> Callable[P, T]:
    """Show the signature of `method` without following `__wrapped__`, which would make a coroutine
    function of it."""
    del call.__wrapped__  # type: ignore[attr-defined] # set by functools.wraps
    signature = inspect.signature(method)
    returns = signature.return_annotation
    if isinstance(returns, str):
        returns = returns.replace("AsyncIterator[", "Iterator[")
    cast("Any", call).__signature__ = signature.replace(return_annotation=returns)
    return call
