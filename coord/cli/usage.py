"""Says what is wrong with a command line, in the form of all errors of coord.

The form is `invalid OPTION VALUE: what is allowed`. The option is named as the user writes it, and
an invalid value of the environment variable COORD_URL is reported under that name.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Sequence
from typing import Any

import click

from coord.errors import BadArgument


def check_values(command: click.Command) -> None:
    """Let the options of a command refuse a value with an error of coord instead of click's."""
    for param in command.params:
        allowed = _allowed(param.type)
        if allowed is not None and "convert" not in vars(param.type):
            # A copy, because all options of one type share the object. It stays an instance of its
            # class, by which click prints the range of a number in the help.
            checked = copy.copy(param.type)
            convert = functools.partial(_convert, param.type, allowed)
            checked.convert = convert  # type: ignore[method-assign] # of this one object
            param.type = checked


def _allowed(kind: Any) -> str | None:
    """Return which values an option of this type accepts; None if click does not refuse any."""
    if isinstance(kind, click.IntRange):
        if kind.max is None:
            return f"must be a whole number of at least {kind.min}"
        return f"must be a whole number from {kind.min} to {kind.max}"
    if isinstance(kind, click.types.IntParamType):
        return "must be a whole number"
    if isinstance(kind, click.types.FloatParamType):
        return "must be a number"
    if isinstance(kind, click.Choice):
        return f"must be one of {', '.join(map(str, kind.choices))}"
    return None


def _convert(
    kind: Any,
    allowed: str,
    value: Any,
    param: click.Parameter | None,
    ctx: click.Context | None,
) -> Any:
    try:
        return kind.convert(value, param, ctx)
    except click.BadParameter:
        assert param is not None  # the object belongs to one option
        raise BadArgument(_name(param), value, allowed) from None


def name_option(error: BadArgument, command: click.Command, words: Sequence[str]) -> BadArgument:
    """Return the error with the name of the option that the value was given with.

    Args:
        error: An error that names the argument of a Python function.
        command: The command that was called.
        words: The words of the command line.
    """
    name, value = error.argument, error.value
    if name == "store":  # the command line names it by its URL
        name = "url"
    if name == "url" and not any(word.partition("=")[0] == "--url" for word in words):
        name = "COORD_URL"
    for param in command.params:
        if isinstance(param, click.Option) and name in (param.name, _name(param)):
            name, value = _name(param), _as_written(value, param.opts, words)
    return BadArgument(name, value, error.allowed)


class _Written(str):
    """A number as the user wrote it, which a message shows without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _as_written(value: object, opts: Sequence[str], words: Sequence[str]) -> object:
    """Return a number as the user wrote it after one of `opts`: 1e12, and not 1000000000000.0."""
    if not isinstance(value, float):
        return value
    for word, following in zip(words, [*words[1:], ""], strict=True):
        opt, separator, text = word.partition("=")
        text = text if separator else following
        with contextlib.suppress(ValueError):
            if opt in opts and repr(float(text)) == repr(value):
                return _Written(text.strip())
    return value


def _name(param: click.Parameter) -> str:
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return (param.name or "").upper()
