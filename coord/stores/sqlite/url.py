"""The URL of a SQLite file: `sqlite:///absolute/path` or `sqlite:relative/path`."""

from __future__ import annotations

import os

from coord.errors import BadArgument

ALLOWED = "use sqlite:///absolute/path or sqlite:relative/path"


def url_of(path: str) -> str:
    """Return the URL of the file at the absolute `path`."""
    from urllib.parse import quote  # slow to import, and rarely needed

    return "sqlite://" + quote(path)


def path_of(url: str) -> str:
    """Return the path of the file that `url` names; `~` is the home directory of the user.

    Args:
        url: A URL whose scheme is `sqlite`. `%` begins a character in percent-encoding.

    Raises:
        BadArgument: The URL does not name a file. The message shows nothing of a URL that may
            hold a password.
    """
    location = url.partition(":")[2]
    if location.startswith("//") and not location.startswith("///"):
        raise BadArgument("url", _shown(url), f"a file has three slashes or none: {ALLOWED}")
    path = location[2:] if location.startswith("///") else location
    before, _, fragment = path.partition("#")
    query = before.partition("?")[2]
    if "%" in path:
        from urllib.parse import unquote  # slow to import, and rarely needed

        path = unquote(path)
    path = os.path.expanduser(path)
    if not path or path.endswith("/") or query or fragment:
        raise BadArgument(
            "url", _shown(url), f"name a file, and percent-encode ? and # in its path: {ALLOWED}"
        )
    return path


def _shown(url: str) -> str:
    """Return the URL for an error message, without what may be a password."""
    if "@" in url:
        return "sqlite:…"
    path, mark, _ = url.partition("?")
    return f"{path}?…" if mark else path
