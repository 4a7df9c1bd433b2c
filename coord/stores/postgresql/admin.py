"""What operators do with a PostgreSQL database: set it up, check it, and raise its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coord.core import validation
from coord.errors import BadArgument, StoreRefused
from coord.runtime.timers import within
from coord.stores.failures import RequestError
from coord.stores.postgresql import schema
from coord.stores.postgresql.connection import Connection, Pool, from_exception
from coord.stores.postgresql.url import PostgreSQLURL, parse_url

if TYPE_CHECKING:
    from coord.stores.protocol import Finding

GUARDED = "the guard of PostgreSQL is always on: it rejects deletes and decreasing tokens"


class PostgreSQLAdmin:
    """Sets up and checks the database behind one URL. Implements `coord.stores.protocol.Admin`.

    Args:
        url: The servers, the user and the database.
    """

    def __init__(self, url: PostgreSQLURL) -> None:
        self._url = url

    def __repr__(self) -> str:
        return f"<PostgreSQLAdmin {self._url.redacted}>"

    def exists(self) -> bool:
        """Return True: looking at a database on a server never creates it."""
        return True

    async def setup(self, options: Mapping[str, Any], timeout: float) -> Sequence[str]:
        """Create the schema with its tables and functions, or complete them. Safe to repeat.

        Any number of processes may do this at once. The database itself must exist.

        Args:
            options: The options of `coord init`. PostgreSQL knows `guard`, which must not be
                False, and `service_tables`, which need no setup: all are in one table.
            timeout: Seconds that it may take.

        Returns:
            A line for each thing that was done.

        Raises:
            BadArgument: An option was given that PostgreSQL does not know.
            StoreUnavailable: The server did not answer in time.
            StoreRefused: The server refuses.
        """
        for name, value in options.items():
            if value is not None and name not in ("guard", "service_tables"):
                raise BadArgument(name, value, "must be omitted: PostgreSQL has no such option")
        guard = options.get("guard")
        if guard is not None and not guard:
            raise BadArgument("guard", guard, "must be True: the guard of PostgreSQL is always on")
        name = schema.quoted(self._url.schema)
        work = [
            f"SELECT pg_advisory_xact_lock({schema.LOCK[0]}, {schema.LOCK[1]})",
            f"CREATE SCHEMA IF NOT EXISTS {name}",
            schema.statements(self._url.schema),
            *schema.revocations(self._url.schema),
        ]
        table = f"{name}.leases"
        pool = Pool(self._url)
        try:
            connection = await pool.open(timeout)
            before = await connection.fetch(
                self._url, "SELECT to_regclass($1) IS NOT NULL AS found", (table,), timeout
            )
            await _execute(connection, self._url, work, timeout)
        except RequestError as error:
            raise error.error() from None
        finally:
            await pool.close()
        done = [] if before[0]["found"] else [f"created the schema {self._url.schema}"]
        return [*done, GUARDED] if guard else done

    async def check(self, timeout: float) -> Sequence[Finding]:
        """Check the server and the tables, and say how to fix what is wrong.

        Args:
            timeout: Seconds that each query may take.
        """
        from coord.stores.postgresql import doctor

        return await doctor.check(self._url, timeout)

    async def raise_token_floor(self, floor: int, roles: Sequence[str], timeout: float) -> int:
        """Make every later token greater than `floor`, for all roles and for `roles`.

        Use it after a restore from a backup. The user must own the table of leases. A leader whose
        token was raised finds its renewal refused and loses its term (`LossReason.TAKEN`).

        Args:
            floor: The token that later ones must exceed.
            roles: Roles that get a vacant lease with this token if they have no lease.
            timeout: Seconds that it may take.

        Returns:
            The number of leases that were changed or created.

        Raises:
            BadArgument: `floor` is not a token, or a role is not valid.
            StoreUnavailable: The server did not answer in time.
            StoreRefused: The server refuses.
        """
        parameters = (validation.token_floor(floor), [validation.role(role) for role in roles])
        pool = Pool(self._url)
        query = schema.calls(self._url.schema)["raise_token_floor"]
        try:
            rows = await pool.run(query, parameters, timeout)
        except RequestError as error:
            raise error.error() from None
        finally:
            await pool.close()
        return int(rows[0][0])


async def _execute(
    connection: Connection, url: PostgreSQLURL, statements: Sequence[str], timeout: float
) -> None:
    """Run the statements in one transaction."""
    import asyncio

    script = ";\n".join(["BEGIN", *statements, "COMMIT"])
    try:
        await within(connection.raw.execute(script), timeout)
    except asyncio.TimeoutError:
        detail = f"setting up {url.redacted} did not end within {timeout:g} s"
        raise RequestError(detail, unknown=False) from None
    except StoreRefused:
        raise
    except Exception as err:
        raise from_exception(err, url) from None


def admin(url: str) -> PostgreSQLAdmin:
    """Return the administration of the database that `url` means. Makes no connection.

    Raises:
        BadArgument: The URL is invalid. The message holds no password.
    """
    return PostgreSQLAdmin(parse_url(url))
