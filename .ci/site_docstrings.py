"""Makes Markdown of the docstrings: their sections become lists, and public names become links."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import griffe

import coord

SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$")
# "ttl, margin: seconds …", and what is indented below it.
ARGUMENT = re.compile(
    r"^(?P<names>[A-Za-z_]\w*(?:\([^)]*\))?(?:, [a-z_]\w*(?:\([^)]*\))?)*): (?P<text>\S.*)$"
)
NAME = re.compile(
    r"`(?:coord\.)?(" + "|".join(sorted(coord.__all__, key=len, reverse=True)) + r")(\([^`]*\))?`"
)


def markdown(text: str) -> str:
    """One docstring."""
    lines: list[str] = []
    listing = in_section = False
    for source in text.splitlines():
        if section := SECTION.match(source):
            lines += ["", f"**{section[1]}**", ""]
            listing, in_section = False, True
            continue
        in_section = in_section and (not source or source.startswith(" "))
        line = source.removeprefix("    ") if in_section else source
        found = ARGUMENT.match(line)
        if found:
            if not listing and lines and lines[-1]:
                lines.append("")
            names = ", ".join(f"`{name}`" for name in re.split(r", (?![^(]*\))", found["names"]))
            lines.append(f"- {names}: {found['text']}")
            listing = True
            continue
        if listing and line and not line.startswith(" "):
            lines.append("")
        listing = listing and (not line or line.startswith(" "))
        lines.append(line)
    return NAME.sub(lambda name: f"[`{name[1]}{name[2] or ''}`][coord.{name[1]}]", "\n".join(lines))


def inherited(obj: griffe.Object) -> str | None:
    """The docstring of a public method that has it from its twin, as those of `Leadership` have
    theirs from `AsyncLeadership`. griffe reads the source, where there is none."""
    parent = obj.parent
    if parent is None or not parent.is_class or obj.name.startswith("_"):
        return None
    holder = getattr(importlib.import_module(obj.module.path), parent.name, None)
    method = inspect.getattr_static(holder, obj.name, None)
    return inspect.getdoc(method) if inspect.isroutine(method) else None


class Docstrings(griffe.Extension):
    """griffe calls it for each object that it has read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is None and (text := inherited(obj)):
            obj.docstring = griffe.Docstring(text, parent=obj)
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
