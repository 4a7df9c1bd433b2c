"""A role that depends on the arguments of a call: `"report-{tenant}"`, or a lambda of them."""

from __future__ import annotations

import datetime
import enum
import inspect
import string
import sys
from collections.abc import Callable
from typing import Any, Union

from coord.core import validation
from coord.errors import BadArgument

RoleSource = Union[str, Callable[..., str]]
"""A role, a template with the names of parameters in braces, or a lambda of some parameters."""

ENCODED = {ord(char) for char in "%/#"} | {*range(32), 127}
"""Characters of a value that are percent-encoded, so that no value makes the role of a shard or a
slot."""
NO_SEPARATOR = "%0123456789ABCDEF"
"""Characters that percent-encoding writes, so that they may be anywhere in an encoded value."""


def is_template(role: RoleSource) -> bool:
    """Return whether a role depends on the arguments of a call.

    Of all functions only a lambda is a role. A decorator that is used without its role gets the
    decorated function as the role, and that must be an error at once.
    """
    if callable(role):
        return getattr(role, "__name__", "") == "<lambda>"
    return isinstance(role, str) and ("{" in role or "}" in role)


class RoleTemplate:
    """Makes the role of a call from its arguments.

    Args:
        source: The template or the function.
        function: The function whose parameters it names.

    Values that differ as texts make different roles. So a value has no character of its own that
    separates it from the next value: it is percent-encoded.

    Raises:
        BadArgument: The template names something else than a parameter of the function, or has
            nothing that separates two values.
    """

    def __init__(self, source: RoleSource, function: Callable[..., Any]) -> None:
        self._source = source
        self._signature = inspect.signature(function)
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        self._names = [
            name
            for name, parameter in self._signature.parameters.items()
            if parameter.kind not in kinds
        ]
        if callable(source):
            self._parameters = list(inspect.signature(source).parameters)
            for name in self._parameters:
                self._check(name)
        else:
            self._parts = self._parse(source)

    def _parse(self, template: str) -> list[tuple[str, str | None, str]]:
        """Return the parts of a template: a text, the name of the value after it, and the character
        that this value must not contain; None and "" after the last text."""
        try:
            parts = list(string.Formatter().parse(template))
        except ValueError as err:
            allowed = f"must have braces only around names of parameters; write {{{{ for {{ ({err})"
            raise BadArgument("role", template, allowed) from None
        for _, name, spec, conversion in parts:
            if name is not None and (spec or conversion or not name.isidentifier()):
                allowed = "must have only names of parameters in braces, such as report-{tenant}"
                raise BadArgument("role", template, allowed)
            if name is not None:
                self._check(name)
        pairs: list[tuple[str, str | None, str]] = []
        text = ""
        for literal, name, _, _ in parts:
            text += literal
            if name is not None:
                if pairs:
                    before, last, _ = pairs[-1]
                    pairs[-1] = (before, last, self._separator(template, text))
                pairs.append((text, name, ""))
                text = ""
        if text.endswith(validation.AGREEMENT_SUFFIXES):
            validation.elected_role(template)
        return [*pairs, (text, None, "")]

    def _separator(self, template: str, text: str) -> str:
        """Return the character of the text between two values that ends the first one: one that is
        encoded anyway, if there is one."""
        possible = [char for char in text if char not in NO_SEPARATOR]
        if not possible:
            allowed = (
                "must have text between two names that is not only digits, A to F and %, such as "
                "report-{tenant}-{day}: else different values would make one role"
            )
            raise BadArgument("role", template, allowed)
        return next((char for char in possible if ord(char) in ENCODED), possible[0])

    def _check(self, name: str) -> None:
        if name not in self._names:
            names = ", ".join(self._names) or "none"
            shown = "a function" if callable(self._source) else self._source
            allowed = f"must name parameters of the function ({names}), and {name!r} is none"
            raise BadArgument("role", shown, allowed)

    def role(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the role of a call with these arguments.

        Raises:
            BadArgument: A value is of a type that makes no role, or the role is invalid.
            TypeError: The function cannot be called with these arguments.
        """
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = bound.arguments
        if callable(self._source):
            arguments = {name: values[name] for name in self._parameters}
            return validation.elected_role(self._source(**arguments))
        text = "".join(
            literal + ("" if name is None else encode(name, values[name], separator))
            for literal, name, separator in self._parts
        )
        return validation.elected_role(text)


def encode(name: str, value: object, separator: str = "") -> str:
    """Return the part of a role for the value of a parameter.

    Args:
        name: The parameter, for the message.
        value: Its value.
        separator: A character that the part must not contain; "" means none.

    Raises:
        BadArgument: The value is no string, integer, UUID, date or Enum.
    """
    if isinstance(value, enum.Enum):
        value = value.value
    uuid = sys.modules.get("uuid")  # its import is slow, and without it there is no UUID
    if isinstance(value, datetime.date):
        text = value.isoformat()
    elif (isinstance(value, (str, int)) and not isinstance(value, bool)) or (
        uuid is not None and isinstance(value, uuid.UUID)
    ):
        text = str(value)
    else:
        allowed = "must be a string, an integer, a UUID, a date or an Enum, because a role names it"
        raise BadArgument(name, value, allowed)
    return "".join(
        _percent_encoded(char) if ord(char) in ENCODED or char == separator else char
        for char in text
    )


def _percent_encoded(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
