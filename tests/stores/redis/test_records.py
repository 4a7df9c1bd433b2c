"""What holds for the service records of every store, on Redis."""

from __future__ import annotations

from tests.services.conftest import registry, two  # noqa: F401 # the fixtures of those tests
from tests.services.test_registry import *  # noqa: F403 # collected with the url of this folder
