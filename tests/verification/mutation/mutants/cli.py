"""Mutants of coord.cli."""

from __future__ import annotations

from tests.verification.mutation.mutant import Mutant

MUTANTS: list[Mutant] = []
