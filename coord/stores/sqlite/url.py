"""The URL of a SQLite file: `sqlite:///absolute/path` or `sqlite:relative/path`."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from coord.errors import BadArgument
from coord.stores.sqlite.files import absolute_path, default_path

LOCAL = "filesystem=local"
"""The only option of a URL: the user states that the file system of the file is local."""
ALLOWED = f"use sqlite:///absolute/path or sqlite:relative/path, and ?{LOCAL} if necessary"
IN_MEMORY = "must name a file (for a store in memory use memory://name)"
_PLAIN = re.compile(r"[A-Za-z0-9_.~/-]*")  # what a URL contains as it is


class Location(NamedTuple):
    """What a URL names.

    Attributes:
        path: The path of the file, as the URL has it.
        local: Whether the URL states that the file system is local, so that coord need not know it.
    """

    path: str
    local: bool = False


def url_of(path: str, *, local: bool = False) -> str:
    """Return the URL of the file at the absolute `path`."""
    if not _PLAIN.fullmatch(path):
        from urllib.parse import quote  # slow to import, and rarely needed

        path = quote(path)
    return f"sqlite://{path}" if not local else f"sqlite://{path}?{LOCAL}"


def default_url() -> str:
    """Return the URL of the user's own file.

    Raises:
        BadArgument: The home directory of the user is not known.
    """
    try:
        path = default_path()
    except RuntimeError as error:
        allowed = f"must be given, or set in COORD_URL: {error}"
        raise BadArgument("url", None, allowed) from None
    if os.name == "posix":
        return url_of(path)
    from urllib.parse import quote  # slow to import, and rarely needed

    return f"sqlite:{quote(path, safe='/:' + os.sep)}"


def parse_url(url: str) -> Location:
    """Return the location that `url` names; `~` is the home directory of the user.

    Args:
        url: A URL whose scheme is `sqlite`. `%` begins a character in percent-encoding.

    Raises:
        BadArgument: The URL does not name a file. The message shows nothing of a URL that may
            hold a password.
    """
    location = url.partition(":")[2]
    if location.startswith("//") and not location.startswith("///"):
        raise BadArgument("url", _shown(url), f"must have three slashes or none: {ALLOWED}")
    path = location[2:] if location.startswith("///") else location
    if "#" in path:
        raise BadArgument("url", _shown(url), f"must have %23 for # in the path: {ALLOWED}")
    path, mark, option = path.partition("?")
    if mark and option != LOCAL:
        raise BadArgument("url", _shown(url), f"must have %3F for ? in the path: {ALLOWED}")
    if "%" in path:
        from urllib.parse import unquote  # slow to import, and rarely needed

        path = unquote(path)
    path = os.path.expanduser(path)
    if path.startswith("~"):
        allowed = "must name a directory instead of ~, because that home directory is not known"
        raise BadArgument("url", _shown(url), allowed)
    if not path or path.endswith("/"):
        raise BadArgument("url", _shown(url), f"must name a file: {ALLOWED}")
    if os.path.basename(path) == ":memory:":
        raise BadArgument("url", _shown(url), IN_MEMORY)
    return Location(path, local=bool(mark))


def absolute_url(url: str) -> str:
    """Return the URL of the same file for a process with another working directory.

    Raises:
        BadArgument: The URL does not name a file.
    """
    location = parse_url(url)
    if url.startswith("sqlite:///"):
        return url
    return url_of(absolute_path(location.path), local=location.local)


def _shown(url: str) -> str:
    """Return the URL for an error message, without what may be a password."""
    location = url.partition(":")[2]
    authority = location.startswith("//") and not location.startswith("///")
    if "@" in url or (authority and ":" in location):
        return "sqlite:…"
    end = min((at for mark in "?#" if (at := url.find(mark)) >= 0), default=len(url))
    return url[: end + 1] + "…" if end + 1 < len(url) else url
