"""The RethinkDB driver, loaded when it is first needed: it builds our queries and answers the server's challenge.

Its connections are not used. The asyncio mode of 2.4.9, the version that doublethink pins, cannot be imported on Python
3.11 and later, and closing one of its connections may hang (docs/design-notes.md, "Why not the driver's connections").
"""

from __future__ import annotations

import json
import warnings
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from coord.errors import StoreRefused


@lru_cache(maxsize=1)
def reql() -> Any:
    """What people call `r`, of our own: `table`, `expr`, `branch`…: terms only, with no state that others share.

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
    """The client's side of SCRAM-SHA-256, with no input or output of its own: `next_message(answer or None)`."""
    reql()
    from rethinkdb.handshake import HandshakeV1_0

    # It encodes the password in Latin-1 where the server wants UTF-8: these are the same bytes.
    as_latin = password.encode().decode("latin-1")
    return HandshakeV1_0(json.JSONDecoder(), json.JSONEncoder(), host, port, user, as_latin)
