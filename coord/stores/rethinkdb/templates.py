"""A query that is built once and filled in often: building terms through the driver takes longer than running them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from coord.stores.rethinkdb import driver

_MARK = "coord parameters"


class Template:
    """`body(parameters)` makes the term; `parameters` stands for an object that is given anew each time."""

    def __init__(self, body: Callable[[Any], Any]) -> None:
        term = driver.reql().json(_MARK).do(body)
        self._before, self._after = driver.start(term, {}).split(json.dumps(_MARK).encode())

    def fill(self, parameters: Mapping[str, Any]) -> bytes:
        """The query, ready to be sent.

        The parameters go as a JSON text within the JSON: `$reql_type$` in them means nothing until the server reads
        that text, and nesting deeper than the driver allows is no trouble.
        """
        text = json.dumps(parameters, allow_nan=False)
        return self._before + json.dumps(text).encode() + self._after
