"""`python -m coord.cli` is `coord`."""

from __future__ import annotations

from coord.cli import main

main()
