"""Which store a URL means. The one place that knows all the stores; each is imported only when it
is wanted."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

from coord.errors import BadArgument

if TYPE_CHECKING:
    from coord.stores.protocol import Announcements, Records, Store

ALLOWED = "sqlite:///absolute/path, sqlite:relative/path, rethinkdb://host[:port][,host…]/database, memory:// or memory://name"

_shared: dict[str, Store] = {}
_records: weakref.WeakKeyDictionary[Store, dict[str, Records]] = weakref.WeakKeyDictionary()
_boards: weakref.WeakKeyDictionary[Store, Announcements] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def resolve(url: str | None = None) -> str:
    """The URL itself; without one `COORD_URL`; without that the SQLite file in the user's state
    directory."""
    if url is not None:
        if not isinstance(url, str) or not url:
            raise BadArgument("url", url, ALLOWED)
        return url
    if from_environment := os.environ.get("COORD_URL"):
        return from_environment
    from coord.stores.sqlite import default_path

    return f"sqlite://{default_path()}" if os.name == "posix" else f"sqlite:{default_path()}"


def open_url(url: str) -> Store:
    """The store that `url` means, not opened. Raises `BadArgument`, which holds no password."""
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        return _memory(rest.removeprefix("//"))
    if scheme == "sqlite":
        from coord.stores.sqlite import SQLiteStore

        return SQLiteStore(_path(url, rest), url=url)
    if scheme == "rethinkdb":
        from coord.stores.rethinkdb import RethinkDBStore, parse_url

        return RethinkDBStore(parse_url(url))
    raise BadArgument("url", f"{scheme}:…" if rest else "…", ALLOWED)


def make_records(store: Store, table: str) -> Records:
    """The keeper of the service records in `table` of that store, which may bring its own
    (`records(table)`)."""
    if (own := getattr(store, "records", None)) is not None:
        keeper: Records = own(table)
        return keeper
    kind = type(store).__name__  # each class is imported only where it is used
    if kind == "SQLiteStore":
        from coord.stores.sqlite import SQLiteStore
        from coord.stores.sqlite.records import SQLiteRecords

        assert isinstance(store, SQLiteStore)
        return SQLiteRecords(store, table)
    if kind == "RethinkDBStore":
        from coord.stores.rethinkdb import RethinkDBStore
        from coord.stores.rethinkdb.records import RethinkDBRecords

        assert isinstance(store, RethinkDBStore)
        return RethinkDBRecords(store, table)
    if kind == "MemoryStore":
        from coord.stores.memory.records import MemoryRecords

        with _lock:
            return _records.setdefault(store, {}).setdefault(table, MemoryRecords())
    raise BadArgument(
        "store", kind, "a store that keeps service records: it has a method records(table)"
    )


def make_board(store: Store) -> Announcements:
    """The board of that store, which may bring its own (`board()`). Raises `BadArgument` where
    there is none."""
    if (own := getattr(store, "board", None)) is not None:
        board: Announcements = own()
        return board
    kinds = [kind.__name__ for kind in type(store).__mro__]
    if "SQLiteStore" in kinds:
        from coord.stores.sqlite import SQLiteStore
        from coord.stores.sqlite.announcements import SQLiteAnnouncements

        assert isinstance(store, SQLiteStore)
        return SQLiteAnnouncements(store)
    if "RethinkDBStore" in kinds:
        from coord.stores.rethinkdb import RethinkDBStore
        from coord.stores.rethinkdb.announcements import RethinkDBAnnouncements

        assert isinstance(store, RethinkDBStore)
        return RethinkDBAnnouncements(store)
    if "MemoryStore" in kinds:
        from coord.stores.memory.announcements import MemoryAnnouncements
        from coord.stores.memory.store import MemoryStore

        assert isinstance(store, MemoryStore)
        with _lock:
            return _boards.setdefault(store, MemoryAnnouncements(store._now, store._wall))
    raise BadArgument("store", kinds[0], "a store that has a board: it has a method board()")


def _memory(name: str) -> Store:
    """`memory://` is the coordinator's own; `memory://name` is shared by all of this process that
    name it."""
    from coord.stores.memory.store import MemoryStore

    if not name:
        return MemoryStore()
    with _lock:
        return _shared.setdefault(name, MemoryStore())


def _path(url: str, rest: str) -> str:
    if rest.startswith("//") and not rest.startswith("///"):
        raise BadArgument("url", url, f"a file has three slashes or none: {ALLOWED}")
    path = rest[2:] if rest.startswith("///") else rest
    before, _, fragment = path.partition("#")
    query = before.partition("?")[2]
    if "%" in path:
        from urllib.parse import unquote  # slow to import, and few need it

        path = unquote(path)
    path = os.path.expanduser(path)
    if not path or path.endswith("/") or query or fragment:
        raise BadArgument(
            "url", url, f"the path of a file, without ? or # (percent-encode them): {ALLOWED}"
        )
    return path
