"""Faults in the transactions are noticed. The rules of the swaps are those of `coord.core.swaps`."""

from __future__ import annotations

from pathlib import Path
from types import FunctionType

import pytest

from coord.stores.etcd import EtcdStore, rows
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
]


@QUIETLY
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.place}: {mutant.name}")
def test_a_fault_in_a_transaction_is_noticed(
    mutant: SwapMutant, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = dict(vars(rows))
    source = mutant.apply(Path(str(rows.__file__)).read_text(encoding="utf-8"))
    exec(compile(source, str(rows.__file__), "exec"), namespace)
    for name, value in namespace.items():
        if isinstance(value, FunctionType) and value.__module__ == rows.__name__:
            monkeypatch.setattr(rows, name, value)
    must_be_noticed(mutant, EtcdStore, url)
