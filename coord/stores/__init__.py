"""The stores. `protocol.py` says what a store must do; `urls.py` finds the one that a URL means."""

from __future__ import annotations
