"""Faults in the queries of swaps are noticed."""

from __future__ import annotations

from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from coord.stores.rethinkdb import RethinkDBStore
from coord.stores.rethinkdb import store as store_module
from coord.stores.rethinkdb.queries import leases, rows, swaps
from tests.stores.mutants import QUIETLY, SwapMutant, must_be_noticed

MODULES = {"swaps": swaps, "leases": leases, "rows": rows}
MUTANTS = [
    SwapMutant(
        "any row is expected",
        "swaps",
        """        conditions.append(matches(params, row))
""",
        """        conditions.append(row["holder"].eq(params["expected_holder"]))
""",
        "a_claim_needs_every_part_of_what_it_expects",
    ),
    SwapMutant(
        "a duplicate is applied",
        "swaps",
        'r.and_(row["holder"].eq(params["holder"]), row["beat"].lt(params["beat"]))',
        'row["holder"].eq(params["holder"])',
        "mine_needs_a_new_beat",
    ),
    SwapMutant(
        "a paused role is claimed",
        "swaps",
        'conditions.append(row["holder"].ne(PAUSED))',
        "conditions.append(r.expr(True))",
        "nobody_claims_a_paused_role",
    ),
    SwapMutant(
        "the floor is ignored",
        "swaps",
        'token.floor(), params["floor"])',
        "token.floor(), token.floor())",
        "floor",
    ),
    SwapMutant(
        "the clock takes over too early",
        "swaps",
        '.gt(row["ttl"].add(params["skew"]))',
        '.gt(row["ttl"])',
        "takeover_waits_for_the_skew",
    ),
    SwapMutant(
        "a claim forgets the kept text",
        "swaps",
        """closed=shape.closed, lost=shape.lost),
            "kept": row["kept"].default(""),
""",
        """closed=shape.closed, lost=shape.lost),
            "kept": "",
""",
        "the_kept_text_outlives_terms",
    ),
    SwapMutant(
        "a stranger renews or releases",
        "swaps",
        """        row["holder"].eq(params["holder"]),
        row["token"].eq(params["token"]),
""",
        """        row["token"].eq(params["token"]),
""",
        "renew_is_guarded",
    ),
    SwapMutant(
        "an older term renews or releases",
        "swaps",
        """        row["token"].eq(params["token"]),
        r.lt(-1,""",
        """        r.lt(-1,""",
        "release_is_guarded",
    ),
    SwapMutant(
        "a duplicate renewal is applied",
        "swaps",
        'r.lt(-1, row["beat"], params["beat"])',
        'r.le(-1, row["beat"], params["beat"])',
        "release_is_guarded",
    ),
    SwapMutant(
        "a quick renewal of an older term",
        "leases",
        """            old["token"].eq(params[1]),
""",
        "",
        "renew_is_guarded",
    ),
    SwapMutant(
        "a quick renewal of a stranger",
        "leases",
        """            old["holder"].eq(params[0]),
""",
        "",
        "renew_is_guarded",
    ),
    SwapMutant(
        "a quick renewal that is a duplicate",
        "leases",
        'old["beat"].lt(params[3])',
        'old["beat"].le(params[3])',
        "a_duplicate_renewal_changes_nothing",
    ),
    SwapMutant(
        "a renewal shortens the ttl",
        "leases",
        'r.branch(old["ttl"].gt(params["ttl"]), old["ttl"], params["ttl"])',
        'params["ttl"]',
        "a_renewal_never_shortens",
    ),
    SwapMutant(
        "a renewal keeps no text",
        "leases",
        'params["keep"].default(old["kept"]).default("")',
        'old["kept"].default("")',
        "a_renewal_may_replace_the_kept_text",
    ),
    SwapMutant(
        "a release keeps no text",
        "swaps",
        'kept = {"kept": params["keep"]} if shape.keeps else {}',
        "kept: dict[str, Any] = {}",
        "a_release_may_replace_the_kept_text",
    ),
    SwapMutant(
        "nothing lingers",
        "swaps",
        'after = {"beat": params["beat"], "ttl": params["linger"]}',
        'after = {"beat": params["beat"], "holder": None}',
        "linger",
    ),
    SwapMutant(
        "an override of another row",
        "leases",
        "applies = swaps.is_expected_strictly(params, row)",
        'applies = row["token"].eq(params["expected_token"])',
        "an_override_needs_every_part_of_what_it_expects",
    ),
    SwapMutant(
        "a revoked lease lasts longer",
        "swaps",
        'r.branch(is_held, row["renewed_at"], r.now())',
        "r.now().add(2)",
        "an_operator_revokes_a_lease_which_runs_out_before_another_takes_it",
    ),
    SwapMutant(
        "an override ends no term",
        "swaps",
        '"history": _closed(params, row["history"]),',
        '"history": row["history"],',
        "the_history_names_who_ended_a_term",
    ),
    SwapMutant(
        "a retired role forgets its token",
        "rows",
        '"token": token, "retired": True',
        '"token": 0, "retired": True',
        "a_retired_role_has_no_row_and_its_next_token_is_higher",
    ),
    SwapMutant(
        "a claim that expects no row is refused for a retired role",
        "swaps",
        'driver.reql().branch(row["retired"], 0, row["token"])',
        'row["token"]',
        "a_first_claim_that_arrives_after_a_whole_life_gets_a_higher_token",
    ),
    SwapMutant(
        "a held row is retired",
        "swaps",
        """        row["holder"].eq(None),
        row["token"].eq(params["expected_token"]),
        row["beat"].eq(params["expected_beat"]),
""",
        "",
        "only_a_vacant_row_that_was_seen_and_is_old_enough_is_deleted",
    ),
    SwapMutant(
        "a role that was just used is retired",
        "swaps",
        """        row["renewed_at"].to_epoch_time().lt(params["before"]),
""",
        "",
        "only_a_vacant_row_that_was_seen_and_is_old_enough_is_deleted",
    ),
    SwapMutant(
        "a kept text is retired",
        "swaps",
        """        row["kept"].eq(""),
""",
        "",
        "a_role_that_keeps_a_text_is_not_deleted",
    ),
    SwapMutant(
        "a retired role is retired again",
        "swaps",
        """        row["retired"].not_(),
        row["holder"].eq(None),
        row["token"].eq(params["expected_token"]),
""",
        """        row["holder"].eq(None),
""",
        "only_a_vacant_row_that_was_seen_and_is_old_enough_is_deleted",
    ),
]


def exchange(module: ModuleType, source: str, patch: pytest.MonkeyPatch) -> None:
    """Replace the functions of a module by those of this source."""
    namespace = dict(vars(module))
    exec(compile(source, str(module.__file__), "exec"), namespace)
    for name, value in namespace.items():
        if isinstance(value, FunctionType) and value.__module__ == module.__name__:
            patch.setattr(module, name, value)
    queries = namespace["Queries"] if module is leases else leases.Queries
    # Stores share the queries of a table, but not faulty ones.
    patch.setattr(store_module, "shared_queries", queries)


@QUIETLY
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.place}: {mutant.name}")
def test_a_fault_in_a_query_is_noticed(
    mutant: SwapMutant, rethinkdb_module_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = MODULES[mutant.place]
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    exchange(module, mutant.apply(source), monkeypatch)
    must_be_noticed(mutant, RethinkDBStore, rethinkdb_module_url)
