"""The shards of a group: their names, their roles, and what all members must agree on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from coord.core import validation
from coord.core.sharing import shard_digits
from coord.core.validation import SHARDS_ROW
from coord.errors import BadArgument
from coord.recipes.shard_work import Shard

MAX_SHARDS = 4_096
"""Shards of one group. Each is a row that every member follows."""
MAX_GROUP_BYTES = 100
"""Bytes of the name of a group. The role of a shard is longer."""


class ShardNames:
    """The shards of a group.

    Args:
        group: The name of the group.
        shards: How many shards there are, or their names.

    Attributes:
        group: The name of the group.
        role: The row of the group, which keeps what its members agree on.
        shards: The shards: 0, 1, 2, … or their names.
        roles: Their roles, in the same order.
        agreement: What this member says about the shards; the members must say the same.

    Raises:
        BadArgument: The group or the shards are invalid.
    """

    def __init__(self, group: str, shards: int | Sequence[str]) -> None:
        allowed = f"must be a string of 1 to {MAX_GROUP_BYTES} bytes in UTF-8, without NUL"
        self.group = validation.name(group, "group", MAX_GROUP_BYTES, allowed)
        self.role = group + SHARDS_ROW
        self.shards: Sequence[Shard] = _shards(shards)
        width = shard_digits(len(self.shards))
        self.roles = [
            validation.role(
                f"{group}/{shard:0{width}}"
                if isinstance(shard, int)
                else f"{group}/{quote(shard, safe=SAFE)}",
                "shards",
            )
            for shard in self.shards
        ]
        self._role_of = dict(zip(self.shards, self.roles, strict=True))
        self.agreement: dict[str, Any] = {"shards": len(self.shards)}
        if not isinstance(shards, int):
            text = json.dumps(list(self.shards)).encode()
            self.agreement["names"] = hashlib.sha256(text).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.shards)

    def role_of(self, shard: Shard) -> str:
        """Return the role of a shard."""
        return self._role_of[shard]

    def agrees(self, there: Mapping[str, Any]) -> bool:
        """Return whether the other members share the same shards."""
        return all(there.get(key) == self.agreement.get(key) for key in ("shards", "names"))

    @staticmethod
    def describe(agreement: Mapping[str, Any]) -> str:
        """Return what an agreement says, for people."""
        names = agreement.get("names")
        named = "" if names is None else f" with names (digest {names})"
        return f"{agreement.get('shards')} shards{named}"


SAFE = " !$&'()*+,-.:;<=>?@[]^_`{|}~"
"""Characters that stay as they are in the role of a named shard. `/` and `%` do not."""


def _shards(argument: object) -> Sequence[Shard]:
    allowed = f"must be a number from 1 to {MAX_SHARDS:,}, or as many different names"
    if isinstance(argument, int) and not isinstance(argument, bool):
        if not 1 <= argument <= MAX_SHARDS:
            raise BadArgument("shards", argument, allowed)
        return range(argument)
    if isinstance(argument, str) or not isinstance(argument, Sequence):
        raise BadArgument("shards", argument, allowed)
    names = [name for name in argument if isinstance(name, str) and name]
    if not 1 <= len(names) <= MAX_SHARDS or len(set(names)) != len(argument):
        raise BadArgument("shards", argument, allowed)
    return tuple(names)
