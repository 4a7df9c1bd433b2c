"""Makes Markdown of our docstrings, which are plain text: lists of their arguments, links of public
names."""

from __future__ import annotations

import re
from typing import Any

import griffe

import coord

# "ttl, margin: seconds …", and what is indented below it.
ARGUMENT = re.compile(
    r"^(?P<names>[a-z_]\w*(?:\([^)]*\))?(?:, [a-z_]\w*(?:\([^)]*\))?)*): (?P<text>\S.*)$"
)
NAME = re.compile(
    r"`(?:coord\.)?(" + "|".join(sorted(coord.__all__, key=len, reverse=True)) + r")(\([^`]*\))?`"
)


def markdown(text: str) -> str:
    """One docstring."""
    lines: list[str] = []
    listing = False
    for line in text.splitlines():
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


class Docstrings(griffe.Extension):
    """griffe calls it for each object that it has read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
