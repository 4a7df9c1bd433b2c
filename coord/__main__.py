"""Runs the command line as `python -m coord`."""

from __future__ import annotations

from coord.cli import main

main()
