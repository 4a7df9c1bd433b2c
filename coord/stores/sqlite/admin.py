"""What operators do with a SQLite file: create it, check it, and raise its tokens."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coord.core import validation
from coord.errors import BadArgument
from coord.stores.sqlite import files, schema
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.database import Database
from coord.stores.sqlite.errors import Busy, classify
from coord.stores.sqlite.identity import look, refuse_second_log
from coord.stores.sqlite.url import parse_url
from coord.stores.sqlite.worker import Job

if TYPE_CHECKING:
    from coord.stores.protocol import Finding

GUARDED = "the guard of a SQLite file is always on: it rejects deletes and decreasing tokens"
RAISE = "UPDATE coord_leases SET token = ? WHERE token < ?"
RAISE_ROW = "UPDATE coord_leases SET token = ? WHERE role = ? AND token < ?"
CREATE_VACANT = """INSERT INTO coord_leases
    (role, token, beat, ttl, renewed_at, runs_out, clock, info)
    VALUES (?, ?, 0, 0, 0, 0, '', '{}') ON CONFLICT (role) DO NOTHING"""


class SQLiteAdmin:
    """Sets up and checks one SQLite file. Implements `protocol.Admin`.

    Attributes:
        path: Absolute path of the file.
    """

    def __init__(self, path: str, *, local: bool = False) -> None:
        """Create an instance; it opens nothing.

        Args:
            path: Path of the file.
            local: Whether the user states that the file system of the file is local.

        Raises:
            BadArgument: `path` is not the path of a file.
        """
        self._database = Database(path, local=local)
        self._local = local
        self.path = self._database.path

    def exists(self) -> bool:
        """Return whether the file exists."""
        return os.path.exists(self.path)

    async def setup(self, options: Mapping[str, Any], timeout: float) -> Sequence[str]:
        """Create the file and its tables if they are missing; safe to repeat.

        Args:
            options: The options of `coord init`. SQLite knows `guard`, which must not be False,
                and `service_tables`, which it creates when they are first used.
            timeout: Maximum time in seconds.

        Returns:
            A line for each thing that was done, for people.

        Raises:
            BadArgument: An option was given that SQLite does not know.
            StoreUnavailable: The file could not be opened in time.
            StoreRefused: The file cannot be used.
        """
        for name, value in options.items():
            if value is not None and name not in ("guard", "service_tables"):
                raise BadArgument(name, value, "must be left out for SQLite")
        guard = options.get("guard")
        if guard is not None and not guard:
            raise BadArgument("guard", guard, "must be left out: the guard is always on")
        existed = self.exists()
        done = [] if existed else [f"created {self.path}"]
        try:
            if existed:
                # This process has not opened the file yet, so no lock of its own can be lost.
                missing = await asyncio.to_thread(self._create_missing_tables, timeout)
                done += [f"created the table {name}, which had been dropped" for name in missing]
            await self._database.create(timeout)
        except sqlite3.Error as err:
            raise classify(err, self.path) from None
        finally:
            await self._database.close()
        return [*done, GUARDED] if guard else done

    def _create_missing_tables(self, timeout: float) -> list[str]:
        files.prepare(self.path, local=self._local)
        until = time.monotonic() + timeout
        while True:
            try:
                refuse_second_log(self.path, look(self.path, os.path.realpath(self.path)))
            except Busy as err:  # another process may be opening the file
                if time.monotonic() > until:
                    raise
                time.sleep(err.pause[1])
            else:
                return schema.create_missing_tables(self.path)

    async def check(self, timeout: float) -> Sequence[Finding]:
        """Check the file. It is read on this thread, and not created if it does not exist.

        Args:
            timeout: Not used: each check of a local file is bounded by itself.

        Returns:
            What was found, the most important first.
        """
        # Imported here because this module is imported with every SQLite store.
        from coord.stores.sqlite import doctor

        return list(doctor.check(self.path, local=self._local))

    async def raise_token_floor(self, floor: int, roles: Sequence[str], timeout: float) -> int:
        """Make every later token greater than `floor`, for all roles and for `roles`.

        Use it after a restore from a backup. Every lower token is raised to `floor`, and each of
        `roles` that has no row gets one without a holder, all in one transaction. Nothing else of a
        lease changes: a leader whose token was raised finds its renewal refused and loses its term
        (`LossReason.TAKEN`), and nobody takes its place any sooner. Repeating it changes nothing.

        Args:
            floor: The token that later ones must exceed.
            roles: Roles that the backup may not contain.
            timeout: Maximum time in seconds.

        Returns:
            How many rows were changed or created.

        Raises:
            BadArgument: `floor` is not a token, or a role is not valid.
            StoreUnavailable: The file is busy or cannot be read.
            StoreRefused: The file cannot be used.
        """
        token = validation.token_floor(floor)
        vacant = [(validation.role(role), token) for role in roles]

        def work(job: Job[int], connection: Connection) -> int:
            conn = connection.begin(synced=True)
            count = conn.execute(RAISE, (token, token)).rowcount
            conn.execute(schema.RAISE_FLOORS, (token, token))  # roles may have been retired since
            if vacant:
                count += conn.executemany(CREATE_VACANT, vacant).rowcount
                # A floor of retired roles may be higher, and counts only while there is no row.
                floors = ((schema.select_floor(conn, role), role) for role, _ in vacant)
                conn.executemany(RAISE_ROW, [(least, role, least) for least, role in floors])
            job.commit(connection)
            return count

        try:
            return await self._database.run(work, timeout)
        finally:
            await self._database.close()


def admin(url: str) -> SQLiteAdmin:
    """Return the administration of the file that `url` names.

    Raises:
        BadArgument: The URL does not name a file.
    """
    location = parse_url(url)
    return SQLiteAdmin(location.path, local=location.local)
