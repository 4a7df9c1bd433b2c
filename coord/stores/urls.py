"""Which store a URL means. The one place that knows all the stores; each is imported only when it
is wanted."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from coord.errors import BadArgument

if TYPE_CHECKING:
    from coord.stores.protocol import Store

ALLOWED = "sqlite:///absolute/path, sqlite:relative/path, rethinkdb://host[:port][,host…]/database, memory:// or memory://name"

_shared: dict[str, Store] = {}
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
