"""The stores. `protocol.py` says what one must do; `coordinator.py` alone picks one, by its URL."""

from __future__ import annotations
