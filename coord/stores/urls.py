"""URLs of stores, and the backends that open them.

This is the only module that knows the backends. Each backend is a module with two functions,
`open_url(url)` and `admin(url)`, and is imported when a URL names it. A package outside of coord
registers its backend as an entry point of the group `coord.stores`: the name is the scheme of its
URLs, and the value is the module.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from coord.errors import BadArgument

if TYPE_CHECKING:
    from types import ModuleType

    from coord.stores.protocol import Admin, Store

BACKENDS = {
    "memory": "coord.stores.memory",
    "sqlite": "coord.stores.sqlite",
    "rethinkdb": "coord.stores.rethinkdb",
    "postgresql": "coord.stores.postgresql",
    "postgres": "coord.stores.postgresql",
    "redis": "coord.stores.redis",
    "rediss": "coord.stores.redis",
    "redis+sentinel": "coord.stores.redis",
    "rediss+sentinel": "coord.stores.redis",
    "etcd": "coord.stores.etcd",
}
"""The module of each backend, by the scheme of its URLs."""
ENTRY_POINTS = "coord.stores"
"""The group of entry points in which other packages register their backends."""
_SECRET_FREE = re.compile(r"(//)?[^@:/?#]*(:[0-9]{1,5})?(/[^@:?#]*)?")
"""What follows the scheme of a URL that has no user, and so no password."""
_FILE = re.compile(r"/?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*\.(db|sqlite3?)")
"""What is more likely the path of a file than a password."""
ALLOWED = (
    "must be a URL: sqlite:///absolute/path, sqlite:relative/path, "
    "rethinkdb://host[:port][,host…]/database, postgresql://host/database, "
    "redis://host[:port], etcd://host[:port], memory:// or memory://name"
)


def resolve(url: str | None = None) -> str:
    """Return the URL to use.

    Args:
        url: The URL that the caller gave. If it is None, the environment variable `COORD_URL` is
            used, and without that the SQLite file in the user's state directory.

    Raises:
        BadArgument: `url` is empty or not a string.
    """
    if url is not None:
        if not isinstance(url, str) or not url:
            raise BadArgument("url", url, ALLOWED)
        return url
    if from_environment := os.environ.get("COORD_URL"):
        if from_environment.startswith("memory:"):
            _log_once("store.not_shared")
        return from_environment
    from coord.stores.sqlite import default_url

    url = default_url()
    _log_once("store.embedded", url)
    return url


_logged: set[tuple[str, int]] = set()


def _log_once(event: str, url: str = "memory://") -> None:
    """Log which store this process uses, for somebody who has more than one process or machine."""
    from coord.runtime import log, process  # `import coord` does not need the module logging

    if (event, process.fork_generation) in _logged:
        return
    _logged.add((event, process.fork_generation))
    if event == "store.embedded":
        log.info("store.embedded", url=url)
    else:
        log.warning("store.not_shared", url=url)


def open_url(url: str) -> Store:
    """Return the store of `url`. It does not connect.

    Raises:
        BadArgument: No backend knows the URL. The message contains no password.
    """
    store: Store = _backend(url).open_url(url)
    return store


def open_admin(url: str) -> Admin:
    """Return the administration of the store of `url`. It does not connect.

    Raises:
        BadArgument: No backend knows the URL. The message contains no password.
    """
    admin: Admin = _backend(url).admin(url)
    return admin


def absolute(url: str, *, password_file: str | None = None) -> str:
    """Return a URL that means the same store in a process with another working directory.

    Args:
        url: A URL. Relative paths in it refer to the current directory.
        password_file: A file whose first line is the password, for the result; None means that the
            URL says where the password is.

    Raises:
        BadArgument: The URL is invalid, or a store without passwords gets a `password_file`.
    """
    backend = _backend(url)
    if password_file is not None:
        if not hasattr(backend, "with_password_file"):
            raise BadArgument("password_file", password_file, "must be left out for this store")
        url = backend.with_password_file(url, password_file)
    if hasattr(backend, "absolute_url"):
        url = backend.absolute_url(url)
    return url


def _backend(url: str) -> ModuleType:
    scheme, colon, _ = url.partition(":")
    # Anything else before the colon is not a scheme, and may be a part of a password.
    if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        raise _not_a_url(url)
    if (name := BACKENDS.get(scheme)) is not None:
        from importlib import import_module

        return import_module(name)
    from importlib.metadata import entry_points  # slow to import, and rarely needed

    for entry_point in entry_points(group=ENTRY_POINTS, name=scheme):
        module: ModuleType = entry_point.load()
        return module
    raise BadArgument("url", _shown(url), ALLOWED)


def _shown(url: str) -> str:
    """Return the URL for an error message, without anything that may be a password."""
    scheme, _, rest = url.partition(":")
    location, mark, _ = rest.partition("?")
    if _SECRET_FREE.fullmatch(location):
        return f"{scheme}:{location}{mark and '?…'}"
    return f"{scheme}:…"


def _not_a_url(url: str) -> BadArgument:
    # What contains "@" or ":" may be a part of a URL with a password.
    absolute_path = url.startswith("/") and not url.startswith("//") and not set(url) & set("@:")
    if not absolute_path and not _FILE.fullmatch(url):
        return BadArgument("url", "…", ALLOWED)
    from urllib.parse import quote  # slow to import, and rarely needed

    written = f"sqlite:{'//' if absolute_path else ''}{quote(url)}"
    return BadArgument("url", url, f"{ALLOWED}; for this file write {written}")
