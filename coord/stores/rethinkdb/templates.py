"""A query that is built once and filled in often: building terms through the driver takes longer than running them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any

from coord.stores.rethinkdb import driver

_MARK = "coord parameters"


class Template:
    """`body(parameters)` makes the term; `parameters` stands for what is given anew each time."""

    def __init__(self, body: Callable[[Any], Any]) -> None:
        term = driver.reql().json(_MARK).do(body)
        self._before, self._after = driver.start(term, {}).split(json.dumps(_MARK).encode())

    def fill(self, parameters: Mapping[str, Any] | Sequence[Any]) -> bytes:
        """The query, ready to be sent.

        The parameters go as a JSON text within the JSON: `$reql_type$` in them means nothing until the server reads
        that text, and nesting deeper than the driver allows is no trouble.
        """
        text = json.dumps(parameters, allow_nan=False)
        return self._before + json.dumps(text).encode() + self._after


class Form:
    """The same for a few plain parameters (texts, numbers, booleans, None), each put where it is used.

    A server takes a query apart, and sends the function that writes to where the row is: of a small query that is a
    third of the time, so a small one is worth a form of its own for each shape of a request.
    """

    def __init__(self, body: Callable[[Mapping[str, Any]], Any]) -> None:
        text = driver.start(body(_Places()), {}).decode()
        self._pieces = re.split(f'"{_MARK} ([a-z_]+)"', text)

    def fill(self, parameters: Mapping[str, Any]) -> bytes:
        """The query, ready to be sent."""
        pieces = self._pieces.copy()
        for at in range(1, len(pieces), 2):
            pieces[at] = _text(parameters[pieces[at]])
        return "".join(pieces).encode()


def _text(value: Any) -> str:
    """As JSON has it. An encoder is made anew for each number, which takes most of the time of filling in a query."""
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
        return driver.reql().expr(f"{_MARK} {name}")

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
