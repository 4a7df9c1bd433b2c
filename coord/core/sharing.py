"""Which shards each member of a group should hold: the decision of one member, as a pure function.

There is no planner and there are no rounds. Each member decides for itself, from the members that
it knows and from the rows of the shards. The rows decide who works on a shard, so a wrong list of
members costs balance and never safety.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Union

from coord.core.history import PastTerm
from coord.core.lease import Lease
from coord.core.validation import AGREEMENT_SUFFIXES, MAX_ROLE_BYTES, SHARDS_ROW

Owners = Sequence[Union[str, None]]
"""For each shard the member that holds it, or for which it is reserved; None if it is free."""


def is_agreement(row: Lease | PastTerm) -> bool:
    """Return whether a row, or a term of it, only says how many shards a group has, or how many
    slots a role. Its name shows that: nobody can be a candidate for such a name."""
    return row.role.endswith(AGREEMENT_SUFFIXES)


def with_agreements(role: str) -> list[str]:
    """Return `role`, and the names of the rows in which a group of that name agrees on its slots or
    shards."""
    names = (role + suffix for suffix in AGREEMENT_SUFFIXES)
    return [role, *(name for name in names if len(name.encode()) <= MAX_ROLE_BYTES)]


def agreement_above(role: str) -> str | None:
    """Return the name of the row of the agreement under which `role` is a slot or a shard, if the
    store has that row; None if the name has no such part."""
    end = max(role.rfind(suffix) for suffix in AGREEMENT_SUFFIXES)
    return role[: end + 1] if end > 0 else None


class Parts(NamedTuple):
    """The slots of a role or the shards of a group, as their agreement says.

    Attributes:
        kind: "slot" or "shard".
        row: The name of the row of the agreement.
        number: How many there are.
        named: Whether they have names, of which the row has only a digest.
    """

    kind: str
    row: str
    number: int
    named: bool

    @classmethod
    def of(cls, row: Lease) -> Parts | None:
        """Return what the row of an agreement says; None if it says nothing."""
        kind, key = ("shard", "shards") if row.role.endswith(SHARDS_ROW) else ("slot", "slots")
        number = row.info.get(key)
        if not is_agreement(row) or not isinstance(number, int) or number < 1:
            return None
        return cls(kind, row.role, number, "names" in row.info)

    @property
    def whole(self) -> str:
        """The role that has these slots, or the group."""
        return self.row[:-1]

    def role(self, number: int) -> str:
        """Return the role of the slot or the shard with this number, from 0."""
        width = shard_digits(self.number) if self.kind == "shard" else 1
        return f"{self.row}{number:0{width}}"

    def __str__(self) -> str:
        """Return the roles of all, for people."""
        if self.named:
            return f"{self.row + 'NAME'!r}"
        last = "" if self.number == 1 else f" to {self.role(self.number - 1)!r}"
        return f"{self.role(0)!r}{last}"

    def has(self, role: str) -> bool:
        """Return whether `role` is one of them. It is False for shards with names, which nobody
        can tell from roles like `orders/cleanup`, which may have nothing to do with the group."""
        number = role.removeprefix(self.row)
        if self.named or not number.isdecimal() or int(number) >= self.number:
            return False
        return role == self.role(int(number))

    def lacks(self, role: str) -> bool:
        """Return whether `role` is named like one of them, and is none."""
        part = role.removeprefix(self.row)
        numbered = self.kind == "slot" or (part.isdecimal() and not self.named)
        return numbered and not self.has(role)


def parts_of(role: str, rows: Collection[Lease]) -> Parts | None:
    """Return what a role consists of.

    Args:
        role: The role.
        rows: Its row and those of `with_agreements`, as far as the store has them.

    Returns:
        None if it is a role by itself: it has a row of its own, or has no slots and shards.
    """
    if any(row.role == role for row in rows):
        return None
    names = with_agreements(role)
    agreements = (
        Parts.of(row) for row in sorted(rows, key=lambda row: row.role) if row.role in names
    )
    return next((parts for parts in agreements if parts is not None), None)


def shard_digits(shards: int) -> int:
    """Return how many digits the number of a shard has in the name of its role."""
    return max(3, len(str(shards - 1)))


class Plan(NamedTuple):
    """What one member should do now.

    Attributes:
        claims: The free shards that it should claim, by their positions.
        missing: How many shards it has too few.
        gives: The members that it should hand one shard each to, in this order.
        settled: Whether every member has what it should have.
    """

    claims: tuple[int, ...]
    missing: int
    gives: tuple[str, ...]
    settled: bool


def targets(counts: Mapping[str, int], shards: int) -> dict[str, int]:
    """Return how many shards each member should have.

    Each has `shards // members`, and those that hold most have one more, so that as few shards as
    possible move.

    Args:
        counts: How many shards each member has now.
        shards: How many shards there are.
    """
    each, more = divmod(shards, len(counts))
    most_first = sorted(counts, key=lambda member: (-counts[member], member))
    return {member: each + (rank < more) for rank, member in enumerate(most_first)}


def plan(owners: Owners, members: Collection[str], me: str, departed: Collection[str] = ()) -> Plan:
    """Return what the member `me` should do.

    Free shards are matched with the members that have too few. So are the members that have too
    many with those that have too few and get no free shard. Then two members never claim the same
    shard, and never hand a shard to the same member, if they know the same.

    Args:
        owners: Who has each shard. An owner that is not in `members` is one that this member does
            not know, or no longer: its shards will become free.
        members: The members that this member knows, with itself, and those that have left and still
            count.
        me: This member.
        departed: The members among them that have left. Free shards wait for them, and nobody
            hands them one.
    """
    counts = dict.fromkeys(sorted(members), 0)
    free: list[int] = []
    unknown = 0
    for shard, owner in enumerate(owners):
        if owner is None:
            free.append(shard)
        elif owner in counts:
            counts[owner] += 1
        else:
            unknown += 1
    goals = targets(counts, len(owners))
    few = _too_few(counts, goals, len(owners) // len(counts))
    many = [m for m in counts for _ in range(counts[m] - goals[m])]
    claims = tuple(shard for shard, member in zip(free, few, strict=False) if member == me)
    takers = [member for member in few[len(free) + unknown :] if member not in departed]
    gives = tuple(taker for giver, taker in zip(many, takers, strict=False) if giver == me)
    settled = not (free or unknown or few or many)
    return Plan(claims, max(goals[me] - counts[me], 0), gives, settled)


def substitutes(
    owners: Owners, members: Collection[str], resting: Mapping[str, Collection[int]], me: str
) -> tuple[int, ...]:
    """Return the free shards that `me` should claim, whatever it holds, because another member
    rests from them.

    Of the members that do not rest from a shard, the one that holds fewest shards claims it.

    Args:
        owners: Who has each shard.
        members: The members that this member knows, with itself.
        resting: The shards that members do not claim for a while, because they were asked to step
            down from them.
        me: This member.
    """
    if not any(resting.values()):  # nearly always
        return ()
    held = Counter(owners)
    counts = {member: held[member] for member in sorted(members)}
    claims = []
    for shard, owner in enumerate(owners):
        if owner is not None:
            continue
        takers = [member for member in counts if shard not in resting.get(member, ())]
        if takers and len(takers) < len(counts):
            taker = min(takers, key=lambda member: (counts[member], member))
            counts[taker] += 1
            if taker == me:
                claims.append(shard)
    return tuple(claims)


def _too_few(counts: Mapping[str, int], goals: Mapping[str, int], each: int) -> list[str]:
    """Return the members that have too few shards, each as often as it lacks one.

    What every member should have comes first, by their ids; the one more that some have comes last.
    A member knows of its own shards earlier than of those of others, so two may each count as the
    one that holds most. Then both claim the same last shards, and only one gets each.
    """
    common = [m for m in counts for _ in range(min(each, goals[m]) - counts[m])]
    return common + [m for m in counts for _ in range(goals[m] - max(counts[m], each))]
