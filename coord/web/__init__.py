"""A web page and a JSON interface for the roles of a store: `coord.web.create_app(coordinator)`.

They need the extra `coord[web]`. `coord web` serves them without a program of your own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coord.errors import CoordError

if TYPE_CHECKING:
    from coord.api.coordinator import AsyncCoordinator
    from coord.api.sync_coordinator import Coordinator
    from coord.web.app import WebApp

LOOPBACK_HOSTS = ("127.0.0.1", "localhost")


def create_app(
    coordinator: Coordinator | AsyncCoordinator,
    *,
    token: str | None = None,
    allowed_hosts: Sequence[str] = LOOPBACK_HOSTS,
    title: str = "coord",
    services: bool = True,
) -> WebApp:
    """Return an ASGI application with a page, a JSON interface and probes for the roles of a store.

    Serve it by itself, or mount it in another application: `app.mount("/coord", create_app(c))`.

    Args:
        coordinator: The coordinator of the store. The application does not close it. An
            `AsyncCoordinator` must belong to the event loop of the server.
        token: The secret for requests that hand roles over: at least 16 visible ASCII characters.
            None means that the application only reads.
        allowed_hosts: The host names, without ports, under which browsers and programs may reach
            the application. It answers 400 to others. `"*"` allows every name.
        title: The name of the installation, for the head of each page.
        services: Whether to show the service registry.

    Raises:
        BadArgument: An argument is invalid.
        CoordError: A package of the extra `coord[web]` is missing.
    """
    try:
        from coord.web.app import WebApp
    except ImportError as err:
        raise missing(err) from None
    return WebApp(
        coordinator, token=token, allowed_hosts=allowed_hosts, title=title, services=services
    )


def missing(err: ImportError) -> CoordError:
    """Return the error to raise when a package of the extra `coord[web]` cannot be imported."""
    return CoordError(
        f"cannot serve web pages: the package {err.name} is missing. pip install 'coord[web]'"
    )
