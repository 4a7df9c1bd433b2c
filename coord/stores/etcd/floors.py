"""The floors of tokens in etcd: the highest tokens of rows that were deleted, by prefix (rule 12).

The floor of a prefix is the key `f/PREFIX` of the namespace, with a number as its value. A claim of
a role without a row computes its token from floors that it read before. Its transaction compares
that no floor has been written since. The transaction that deletes a row writes a floor, so such a
claim fails, reads the floors, and is tried again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coord.core.lease import MAX_TOKEN
from coord.errors import StoreRefused
from coord.stores.etcd.gateway import decode, encode, end_of_prefix
from coord.stores.failures import RequestError


@dataclass(frozen=True, slots=True)
class Floors:
    """The floors of one namespace.

    Attributes:
        prefix: What the keys of all floors begin with.
        revision: The revision of etcd at which they were read; 0 if they were not.
        tokens: The floors by prefix of roles.
    """

    prefix: str
    revision: int = 0
    tokens: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def decode(cls, prefix: str, pairs: Sequence[Mapping[str, Any]], revision: int) -> Floors:
        """Return the floors in these keys and values.

        Raises:
            RequestError: coord did not write a value.
        """
        tokens = {
            decode(pair["key"]).removeprefix(prefix): token_in(pair, prefix) for pair in pairs
        }
        return cls(prefix, revision, tokens)

    def of(self, role: str) -> int:
        """Return the highest floor of a prefix of `role`; 0 if there is none."""
        floors = (token for prefix, token in self.tokens.items() if role.startswith(prefix))
        return max(floors, default=0)

    def range(self) -> dict[str, Any]:
        """Return the range of the keys of all floors."""
        return {"key": encode(self.prefix), "range_end": end_of_prefix(self.prefix)}

    def unchanged(self) -> dict[str, Any]:
        """Return the comparison that fails if a floor was written after these were read."""
        later = str(self.revision + 1)
        return {"target": "MOD", "result": "LESS", "mod_revision": later, **self.range()}


def token_in(pair: Mapping[str, Any], prefix: str) -> int:
    """Return the floor in a key and its value.

    Raises:
        RequestError: coord did not write it.
    """
    text = decode(pair.get("value", ""))
    if not (text.isascii() and text.isdecimal() and int(text) <= MAX_TOKEN):
        name = decode(pair["key"]).removeprefix(prefix)
        detail = f"the floor of the prefix {name!r} is damaged: it must be a token"
        raise RequestError(detail, unknown=False, refusal=StoreRefused)
    return int(text)
