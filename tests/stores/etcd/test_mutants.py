"""Faults in the transactions are noticed. The rules of the swaps are those of `coord.core.swaps`."""

from __future__ import annotations

from pathlib import Path
from types import FunctionType

import pytest

from coord.stores.etcd import EtcdStore, retirement, rows
from tests.stores.mutants import QUIETLY, SwapMutant, must_be_noticed

MUTANTS = [
    SwapMutant(
        "nothing is compared",
        "rows",
        """        "compare": [{"target": "MOD", "key": encode(key), "mod_revision": str(row.revision)}],
""",
        """        "compare": [],
""",
        "every_loser_of_a_race_sees_the_row_of_the_winner",
    ),
    SwapMutant(
        "a later end replaces the end of a term",
        "rows",
        '"compare": [absent_yet], "success"',
        '"compare": [], "success"',
        "the_history_names_who_ended_a_term",
    ),
    SwapMutant(
        "a text is kept for another role",
        "rows",
        "put(keys.kept(operation.role), operation.keep)",
        "put(keys.kept(operation.holder), operation.keep)",
        "a_renewal_may_replace_the_kept_text",
    ),
    SwapMutant(
        "a first claim does not compare the floors",
        "rows",
        'request["compare"].append(floors.unchanged())',
        "pass",
        "a_first_claim_that_arrives_after_a_whole_life_gets_a_higher_token",
    ),
    SwapMutant(
        "a new row does not begin above the floor",
        "rows",
        "swaps.born(after, operation, floors.of(operation.role))",
        "swaps.born(after, operation, 0)",
        "a_retired_role_has_no_row_and_its_next_token_is_higher",
    ),
    SwapMutant(
        "a row is deleted without a floor",
        "retirement",
        "rows.put(key, str(token))",
        'rows.put(key, "0")',
        "a_retired_role_has_no_row_and_its_next_token_is_higher",
    ),
    SwapMutant(
        "a floor falls",
        "retirement",
        "max(before, *(row.lease.token for _, row in unused))",
        "max(row.lease.token for _, row in unused)",
        "a_floor_is_raised_by_each_role_of_its_prefix",
    ),
    SwapMutant(
        "the history of a retired role stays",
        "retirement",
        ", rows.all_with(keys.terms(role))]",
        "]",
        "a_retired_role_has_no_row_and_its_next_token_is_higher",
    ),
    SwapMutant(
        "a kept text is deleted",
        "retirement",
        'decode(kept[0].get("value", "")) if kept else ""',
        '""',
        "a_role_that_keeps_a_text_is_not_deleted",
    ),
]
MODULES = {"rows": rows, "retirement": retirement}


@QUIETLY
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.place}: {mutant.name}")
def test_a_fault_in_a_transaction_is_noticed(
    mutant: SwapMutant, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = MODULES[mutant.place]
    namespace = dict(vars(module))
    source = mutant.apply(Path(str(module.__file__)).read_text(encoding="utf-8"))
    exec(compile(source, str(module.__file__), "exec"), namespace)
    for name, value in namespace.items():
        if isinstance(value, FunctionType) and value.__module__ == module.__name__:
            monkeypatch.setattr(module, name, value)
    must_be_noticed(mutant, EtcdStore, url)
