"""Leases in RethinkDB, for candidates on more than one machine.

Importing this package does not import the driver. The first query does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coord.stores.rethinkdb.admin import RethinkDBAdmin
from coord.stores.rethinkdb.store import RethinkDBStore
from coord.stores.rethinkdb.url import RethinkURL, absolute_url, parse_url, with_password_file

if TYPE_CHECKING:
    from coord.stores.protocol import Admin, Store

__all__ = [
    "RethinkDBStore",
    "RethinkURL",
    "absolute_url",
    "admin",
    "open_url",
    "parse_url",
    "with_password_file",
]


def open_url(url: str) -> Store:
    """Return the store that `url` means. Makes no connection.

    Raises:
        BadArgument: The URL is invalid. The message holds no password.
    """
    return RethinkDBStore(parse_url(url))


# `admin.py` is imported above and not in here: importing a submodule sets an attribute of the
# package, and would put the module in the place of this function.
def admin(url: str) -> Admin:
    """Return what sets up and checks the database that `url` means. Makes no connection.

    Raises:
        BadArgument: The URL is invalid. The message holds no password.
    """
    return RethinkDBAdmin(parse_url(url))
