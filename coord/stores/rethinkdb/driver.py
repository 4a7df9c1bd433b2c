"""The RethinkDB driver, which builds the queries. It is imported when it is first needed.

Its connections are not used. The asyncio mode of 2.4.9, the version that doublethink pins, cannot
be imported on Python 3.11 and later, and closing one of its connections may hang
(docs/design-notes.md, "Why not the driver's connections").
"""

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
    """Return what is usually called `r`: `table`, `expr`, `branch` and all other terms.

    It has terms only, and no state that other users of the driver share.

    Raises:
        StoreRefused: The driver is missing, or too old for this Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SyntaxWarnings of the driver do not concern our users.
        try:
            from rethinkdb import ast, query
        except Exception as err:
            raise StoreRefused(
                f"the rethinkdb driver cannot be imported ({type(err).__name__}: {err}); "
                f"install it with: pip install 'rethinkdb>=2.4.10.post1,<2.5'"
            ) from None
    return SimpleNamespace(expr=ast.expr, **{name: getattr(query, name) for name in query.__all__})


def start(term: Any, options: dict[str, Any]) -> bytes:
    """Return a query as the server reads it: `[1 (START), term, options]` in JSON."""
    expr = reql().expr
    from rethinkdb.ast import ReQLEncoder

    encoded = {name: expr(value) for name, value in options.items()}
    return str(ReQLEncoder().encode([1, term, encoded])).encode()


_MARK = "coord parameters"


class JsonTemplate:
    """A query that is built once and filled in often.

    Building terms through the driver takes longer than running them.

    Args:
        body: Makes the term; its argument is the parameters of a query.
    """

    def __init__(self, body: Callable[[Any], Any]) -> None:
        term = reql().json(_MARK).do(body)
        self._before, self._after = start(term, {}).split(json.dumps(_MARK).encode())

    def fill(self, parameters: Mapping[str, Any] | Sequence[Any]) -> bytes:
        """Return the query with these parameters, ready to be sent.

        The parameters are a JSON text within the JSON: `$reql_type$` in them means nothing until
        the server reads that text, and deeper nesting than the driver allows is no error.
        """
        text = json.dumps(parameters, allow_nan=False)
        return self._before + json.dumps(text).encode() + self._after


class InlineTemplate:
    """The same for a few parameters that are texts, numbers, booleans or None.

    Each parameter is written where it is used. The server parses a query and sends the function
    that writes to the node of the row. For a small query that is a third of the time, so a small
    query has a template of its own for each shape of a request.
    """

    def __init__(self, body: Callable[[Mapping[str, Any]], Any]) -> None:
        text = start(body(_Places()), {}).decode()
        self._pieces = re.split(f'"{_MARK} ([a-z_]+)"', text)

    def fill(self, parameters: Mapping[str, Any]) -> bytes:
        """Return the query with these parameters, ready to be sent."""
        pieces = self._pieces.copy()
        for at in range(1, len(pieces), 2):
            pieces[at] = _text(parameters[pieces[at]])
        return "".join(pieces).encode()


def _text(value: Any) -> str:
    """Return a value in JSON.

    `json.dumps` makes a new encoder for each call, which would take most of the time of `fill`.
    """
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    assert isinstance(value, (int, float))  # The server would read a list or a dict as a term.
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
