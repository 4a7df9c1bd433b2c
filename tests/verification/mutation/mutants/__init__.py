"""All mutants, in one module for each package of coord."""

from __future__ import annotations

from tests.verification.mutation.mutant import Mutant
from tests.verification.mutation.mutants import (
    api,
    cli,
    election,
    recipes,
    runtime,
    services,
    stores,
    web,
)

MUTANTS: list[Mutant] = [
    *runtime.MUTANTS,
    *stores.MUTANTS,
    *election.MUTANTS,
    *recipes.MUTANTS,
    *services.MUTANTS,
    *api.MUTANTS,
    *cli.MUTANTS,
    *web.MUTANTS,
]
