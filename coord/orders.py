"""What the leader of a role may be asked: to step down, or to hand the role to a certain candidate.

It is asked by a loud notice on the board, and does it itself, by the way of every step-down: first the work ends, then
the lease is released. Nobody else's lease is ever written. An order names the term that it means, so that one which
comes late does not hit the next leader.
"""

from __future__ import annotations

from dataclasses import dataclass

from coord.candidate import fresh_id
from coord.checks import is_number
from coord.lease import MAX_TOKEN
from coord.notice import REQUEST, Notice

STANDS_FOR, AT_LEAST = 2.0, 60.0
"""An order stands for so many ttls of the lease, and so many seconds: a leader that lost its feed listens again within
ten, and the clocks of two nodes, by which a notice runs out, may be half a minute apart. It is for one term, so its
standing longer does no harm."""


@dataclass(frozen=True, slots=True)
class Order:
    """`to` is a candidate's id (None: anybody). `cooldown`: seconds for which the leader then does not stand; None: its
    own choice. `by` says who asks."""

    role: str
    token: int
    to: str | None = None
    by: str = ""
    cooldown: float | None = None
    key: str = ""

    def notice(self, ttl: float) -> Notice:
        """The order, to be posted; `ttl` is the lease's."""
        body = {"token": self.token, "to": self.to, "by": self.by, "cooldown": self.cooldown}
        return Notice(
            self.key or f"order {fresh_id()}", self.role, REQUEST, body, max(STANDS_FOR * ttl, AT_LEAST), loud=True
        )

    @classmethod
    def of(cls, notice: Notice) -> Order | None:
        """The order that was posted; None for another kind of notice, or one that cannot be used."""
        token, to, by, cooldown = (notice.body.get(name) for name in ("token", "to", "by", "cooldown"))
        if (
            notice.kind != REQUEST
            or not is_number(token, MAX_TOKEN)
            or not (to is None or (isinstance(to, str) and to))
        ):
            return None
        pause = float(cooldown) if is_number(cooldown, MAX_TOKEN) and cooldown >= 0 else None
        return cls(notice.role, int(token), to, by if isinstance(by, str) else "", pause, notice.key)
