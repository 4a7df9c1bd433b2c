"""The RethinkDB driver, loaded when it is first needed: it builds our queries and answers the
server's challenge.

Its connections are not used. The asyncio mode of 2.4.9, the version that doublethink pins, cannot
be imported on Python 3.11 and later, and closing one of its connections may hang
(docs/design-notes.md, "Why not the driver's connections")."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from types import SimpleNamespace
from typing import Any

from coord.errors import StoreRefused


@lru_cache(maxsize=1)
def reql() -> Any:
    """What people call `r`, of our own: `table`, `expr`, `branch`…: terms only, with no state that
    others share.

    Raises `StoreRefused` when the driver is missing or too old for this Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old code: its SyntaxWarnings are not our users' business
        try:
            from rethinkdb import ast, query
        except Exception as err:
            raise StoreRefused(
                f"the rethinkdb driver cannot be imported ({type(err).__name__}: {err}); "
                f"install it with: pip install 'rethinkdb>=2.4.10.post1,<2.5'"
            ) from None
    return SimpleNamespace(expr=ast.expr, **{name: getattr(query, name) for name in query.__all__})


def start(term: Any, options: dict[str, Any]) -> bytes:
    """A query as the server reads it: `[1 (START), term, options]` in JSON."""
    expr = reql().expr
    from rethinkdb.ast import ReQLEncoder

    encoded = {name: expr(value) for name, value in options.items()}
    return str(ReQLEncoder().encode([1, term, encoded])).encode()


def handshake(host: str, port: int, user: str, password: str) -> Any:
    """The client's side of SCRAM-SHA-256, with no input or output of its own: `next_message(answer
    or None)`."""
    reql()
    from rethinkdb.handshake import HandshakeV1_0

    # It encodes the password in Latin-1 where the server wants UTF-8: these are the same bytes.
    as_latin = password.encode().decode("latin-1")
    return HandshakeV1_0(json.JSONDecoder(), json.JSONEncoder(), host, port, user, as_latin)


# -- A query that is built once and filled in often: building terms through the driver takes longer
# than running them.

_MARK = "coord parameters"


class JsonTemplate:
    """`body(parameters)` makes the term; `parameters` stands for what is given anew each time."""

    def __init__(self, body: Callable[[Any], Any]) -> None:
        term = reql().json(_MARK).do(body)
        self._before, self._after = start(term, {}).split(json.dumps(_MARK).encode())

    def fill(self, parameters: Mapping[str, Any] | Sequence[Any]) -> bytes:
        """The query, ready to be sent.

        The parameters go as a JSON text within the JSON: `$reql_type$` in them means nothing until
        the server reads that text, and nesting deeper than the driver allows is no error."""
        text = json.dumps(parameters, allow_nan=False)
        return self._before + json.dumps(text).encode() + self._after


class InlineTemplate:
    """The same for a few plain parameters (texts, numbers, booleans, None), each put where it is
    used.

    A server takes a query apart, and sends the function that writes to where the row is: of a small
    query that is a third of the time, so a small one is worth a form of its own for each shape of a
    request."""

    def __init__(self, body: Callable[[Mapping[str, Any]], Any]) -> None:
        text = start(body(_Places()), {}).decode()
        self._pieces = re.split(f'"{_MARK} ([a-z_]+)"', text)

    def fill(self, parameters: Mapping[str, Any]) -> bytes:
        """The query, ready to be sent."""
        pieces = self._pieces.copy()
        for at in range(1, len(pieces), 2):
            pieces[at] = _text(parameters[pieces[at]])
        return "".join(pieces).encode()


def _text(value: Any) -> str:
    """As JSON has it. An encoder is made anew for each number, which takes most of the time of
    filling in a query."""
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    assert isinstance(value, (int, float))  # a list or a dict would be read as a term
    if not math.isfinite(value):
        raise ValueError(f"{value} is no JSON")
    return repr(value)


class _Places(Mapping[str, Any]):
    def __getitem__(self, name: str) -> Any:
        return reql().expr(f"{_MARK} {name}")

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
