"""Runs `coord` as `python -m coord.cli`."""

from __future__ import annotations

from coord.cli import main

main()
