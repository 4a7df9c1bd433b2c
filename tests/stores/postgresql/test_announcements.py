"""What holds for the announcements of every store, on PostgreSQL."""

from __future__ import annotations

from tests.stores.test_announcements import *  # noqa: F403 # collected with the url of this folder
