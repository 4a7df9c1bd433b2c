"""The application for `INSTALLED_APPS`, and what `manage.py check` says about the store."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks

from coord.api.coordinator import AsyncCoordinator
from coord.errors import BadArgument

INVALID_URL = "coord.E001"
ONE_MACHINE = "coord.W001"


class CoordConfig(AppConfig):  # type: ignore[misc] # Django ships no types
    """The application. It starts nothing: `ready` also runs in `check`, `shell` and `migrate`."""

    name = "coord.integrations.django"
    label = "coord"
    verbose_name = "coord"

    def ready(self) -> None:
        """Register the system check."""
        checks.register(check_url)


def store_url() -> str | None:
    """Return the setting COORD_URL; None if it is not set, and coord decides."""
    url: str | None = getattr(settings, "COORD_URL", None)
    return url


def check_url(**_: Any) -> list[checks.CheckMessage]:
    """Return what is wrong with the store of this project. It does not connect."""
    try:
        AsyncCoordinator(store_url())
    except BadArgument as err:
        return [checks.Error(str(err), hint="Change COORD_URL.", id=INVALID_URL)]
    url = store_url() or os.environ.get("COORD_URL", "")
    if settings.DEBUG or not _several(settings.ALLOWED_HOSTS):
        return []
    if url and not url.startswith("sqlite:"):
        return []
    return [
        checks.Warning(
            "DEBUG is off, several hosts are allowed, and coord uses a SQLite file "
            f"({url or 'COORD_URL is not set'}): each machine then has a leader of its own.",
            hint="Set COORD_URL to a store that all machines reach, such as "
            "postgresql://host/database. If there is one machine, add "
            f"SILENCED_SYSTEM_CHECKS = [{ONE_MACHINE!r}].",
            id=ONE_MACHINE,
        )
    ]


def _several(hosts: Collection[str]) -> bool:
    """Return whether ALLOWED_HOSTS allows more than one host."""
    return len(hosts) > 1 or any(host.startswith((".", "*")) for host in hosts)
