"""What `coord init` and `coord doctor` do to an etcd cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coord.core import validation
from coord.core.lease import Lease
from coord.errors import BadArgument, StoreUnavailable
from coord.stores.etcd import era, rows
from coord.stores.etcd.floors import Floors, token_in
from coord.stores.etcd.gateway import encode
from coord.stores.etcd.store import PUT, RANGE, TXN, EtcdStore
from coord.stores.etcd.url import EtcdURL, parse_url
from coord.stores.failures import RequestError

if TYPE_CHECKING:
    from coord.stores.protocol import Finding

MAX_TRIES = 20
"""Attempts to raise one row that others are writing."""


class EtcdAdmin:
    """Sets up and checks one namespace. Implements `protocol.Admin`.

    Args:
        url: The members, the user and the namespace.
    """

    def __init__(self, url: EtcdURL) -> None:
        self._url = url
        self._keys = rows.Keys(url)

    def __repr__(self) -> str:
        return f"<EtcdAdmin {self._url.redacted}>"

    def exists(self) -> bool:
        """Return True: looking at a cluster never creates anything."""
        return True

    async def setup(self, options: Mapping[str, Any], timeout: float) -> Sequence[str]:
        """Check that the cluster can be used. etcd needs no set-up: a key is its own table.

        Args:
            options: The options of `coord init`. etcd knows none.
            timeout: Seconds that it may take.

        Raises:
            BadArgument: An option was given.
            StoreUnavailable: The cluster did not answer in time.
            StoreRefused: The cluster refused.
        """
        for name, value in options.items():
            if value is not None:
                raise BadArgument(name, value, "must not be given: etcd has no such option")
        store = EtcdStore(self._url)
        try:
            await store.open(timeout)
        finally:
            await store.close()
        return []

    async def check(self, timeout: float) -> Sequence[Finding]:
        """Check the cluster, and return what is wrong with it and how to fix that."""
        from coord.stores.etcd.doctor import check

        return await check(self._url, timeout)

    async def raise_token_floor(self, floor: int, roles: Sequence[str], timeout: float) -> int:
        """Make every later token greater than `floor`, for all roles that exist and for `roles`.

        Args:
            floor: A number that is at least as great as every token that was ever given.
            roles: Roles that get a vacant lease with this token if they have no lease.
            timeout: Seconds that each request may take.

        Returns:
            How many leases were changed or created.

        Raises:
            BadArgument: `floor` is not a token, or a role is not valid.
        """
        token = validation.token_floor(floor)
        new = {validation.role(role) for role in roles}
        store = EtcdStore(self._url)
        try:
            # Before anything else: from now on no write rests on what was read before a restore.
            await store.gateway.call(PUT, era.new(self._keys.era), timeout)
            existing = {lease.role for lease in await store.read(None, timeout)}
            await self._raise_floors(store, token, timeout)
            changed = 0
            for role in sorted(existing | new):
                changed += await self._raise(store, role, token, timeout)
            return changed
        except RequestError as err:
            raise err.error() from None
        finally:
            await store.close()

    async def _raise_floors(self, store: EtcdStore, token: int, timeout: float) -> None:
        """Raise the floors of roles that were deleted: their next tokens are greater, too."""
        for _ in range(MAX_TRIES):
            answer = await store.gateway.call(RANGE, Floors(self._keys.floors).range(), timeout)
            lower = [
                pair for pair in rows.pairs(answer) if token_in(pair, self._keys.floors) < token
            ]
            if not lower:
                return
            for pair in lower:
                same = {"target": "MOD", "key": pair["key"], "mod_revision": pair["mod_revision"]}
                raised = {"request_put": {"key": pair["key"], "value": encode(str(token))}}
                request = {"compare": [same], "success": [raised]}
                await store.gateway.call(TXN, request, timeout)
        raise StoreUnavailable("others write the floors all the time; try again")

    async def _raise(self, store: EtcdStore, role: str, token: int, timeout: float) -> int:
        key = self._keys.lease(role)
        for _ in range(MAX_TRIES):
            ranges = [{"key": encode(key)}, Floors(self._keys.floors).range()]
            look = {"success": [{"request_range": each} for each in ranges]}
            answer = await store.gateway.call(TXN, look, timeout)
            pairs, existing = (rows.pairs(part["response_range"]) for part in answer["responses"])
            revision = int(answer["header"]["revision"])
            floors = Floors.decode(self._keys.floors, existing, revision)
            row = rows.decode_row(role, pairs[0]) if pairs else rows.absent(role)
            if pairs and row.lease.token >= token:
                return 0
            old, unchanged = row.lease, []
            if not pairs:
                token, unchanged = max(token, floors.of(role)), [floors.unchanged()]
            # Nothing else changes: a leader finds its renewal refused, and nobody comes sooner.
            times = old.ttl, old.renewed_at, 0.0, old.info, old.since
            raised = Lease(role, old.holder, token, old.beat, *times)
            request = {
                "compare": [
                    {"target": "MOD", "key": encode(key), "mod_revision": str(row.revision)},
                    *unchanged,
                ],
                "success": [rows.put(key, rows.encode_lease(raised, row.expires_at))],
            }
            if (await store.gateway.call(TXN, request, timeout)).get("succeeded"):
                return 1
        raise StoreUnavailable(f"others write the row of {role!r} all the time; try again")


def admin(url: str) -> EtcdAdmin:
    """Return the administration of the namespace of `url`. It does not connect.

    Raises:
        BadArgument: The URL is invalid. The message holds no password.
    """
    return EtcdAdmin(parse_url(url))
