"""The text that a role keeps beside its lease: notes and ticks. It outlives the terms of the role.

The text is `{"notes": {…}, "ticks": {…}}` in JSON, or "" for nothing. A store does not look into it
(`coord/stores/protocol.py`, `HasKept`). Only the holder of the present token can replace it, with a
renewal or a release that has a `keep`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from coord.core import validation
from coord.errors import BadArgument, StoreRefused

MAX_KEY_BYTES = 120
"""Bytes of UTF-8 that the key of a note may have."""
MAX_NOTES_BYTES = 65_536
"""Bytes of JSON that the notes of a role may have together."""
MAX_KEEP = 64
"""Ticks of a job that are kept at most."""
MAX_KEPT_BYTES = 524_288
"""Bytes that a store must be able to keep for a role."""
MAX_TIME = 2e11
"""The largest time in a note, in seconds since 1970: year 8307. A datetime holds no larger ones
than year 9999."""

MISSING = object()
"""The value that was not given."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a store keeps for a role, as it was read.

    Attributes:
        token: The token of the row at that moment; 0 if the role has no row.
        text: The text; "" if nothing was kept yet.
    """

    token: int
    text: str = field(repr=False)


class Values(NamedTuple):
    """The content of a kept text.

    Attributes:
        notes: The notes of the role, by their keys.
        ticks: Which ticks of a job were run (`coord/core/ticks.py`).
    """

    notes: Mapping[str, Any]
    ticks: Mapping[str, Any]

    @classmethod
    def decode(cls, role: str, text: str) -> Values:
        """Return the content of a kept text.

        Raises:
            StoreRefused: Somebody else than coord wrote the text. Nothing is kept for that role
                before a person has looked, because a tick might run twice.
        """
        if not text:
            return cls({}, {})
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        parts = content if isinstance(content, dict) else {"notes": None}
        notes, ticks = parts.get("notes", {}), parts.get("ticks", {})
        if not isinstance(notes, dict) or not isinstance(ticks, dict):
            raise StoreRefused(
                f"the text that the role {role!r} keeps is damaged: correct it in the store, or "
                "set it to an empty text, which forgets its notes and ticks"
            )
        return cls(notes, ticks)

    def encode(self) -> str:
        """Return the text to keep."""
        content = {"notes": self.notes, "ticks": self.ticks}
        kept = {name: part for name, part in content.items() if part}
        return encode_json(kept) if kept else ""

    def with_notes(self, changes: Mapping[str, Any]) -> Values:
        """Return the content after these notes were written; a value of None deletes its note.

        Raises:
            BadArgument: The notes of the role become too large together.
        """
        notes = {**self.notes, **changes}
        notes = {key: value for key, value in notes.items() if value is not None}
        size = len(encode_json(notes).encode())
        if size > MAX_NOTES_BYTES:
            raise BadArgument(
                "note",
                dict(changes),
                f"must fit in {MAX_NOTES_BYTES:,} bytes of JSON with the other notes of the role, "
                f"and they would have {size:,}; delete old ones with a value of None",
            )
        return Values(notes, self.ticks)


def encode_json(value: object) -> str:
    """Return the JSON of a value that `json_value` accepts."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def note_key(prefix: str, name: str) -> str:
    """Return a key for a note about something that has a name of any length.

    Args:
        prefix: The begin of the key, at most 40 bytes.
        name: The name. A long one is replaced by its SHA-256 hash.
    """
    key = f"{prefix}{name}"
    if len(key.encode()) <= MAX_KEY_BYTES:
        return key
    return f"{prefix}{hashlib.sha256(name.encode()).hexdigest()}"


def time_of(value: object) -> float | None:
    """Return the value of a note if it is a time, in seconds since 1970; else None.

    Anybody may write notes, so a value may be of any type.
    """
    return float(value) if validation.is_number(value, MAX_TIME) and value >= 0 else None


def json_value(value: object, argument: str, allowed: str) -> tuple[Any, int]:
    """Return a copy of a value as JSON holds it, and the bytes that it needs.

    Args:
        value: What the caller passed.
        argument: The name of the argument, for the message.
        allowed: What the message says is allowed.

    Raises:
        BadArgument: JSON cannot hold it.
    """
    try:
        text = encode_json(value)
        return json.loads(text), len(text.encode())
    except (TypeError, ValueError, RecursionError) as err:
        raise BadArgument(argument, value, f"{allowed} ({err})") from None


def validate_notes(notes: object, value: object = MISSING) -> dict[str, Any]:
    """Return a copy of the notes that a caller wants to write: a key and a value, or a dict.

    Raises:
        BadArgument: A key is not a string of 1 to 120 bytes, or JSON cannot hold a value.
    """
    mapping: object = {notes: value} if isinstance(notes, str) and value is not MISSING else notes
    if not isinstance(mapping, Mapping) or (mapping is notes and value is not MISSING):
        raise BadArgument("note", notes, "must be a key and a value, or a dict of notes")
    allowed = f"must be a string of 1 to {MAX_KEY_BYTES} bytes in UTF-8, without NUL"
    return {
        validation.name(key, "key", MAX_KEY_BYTES, allowed): json_value(
            each, f"note {key!r}", "must be a value that JSON can hold"
        )[0]
        for key, each in mapping.items()
    }


def copy_notes(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of notes, which the caller may change."""
    copied: dict[str, Any] = json.loads(encode_json(dict(notes)))
    return copied
