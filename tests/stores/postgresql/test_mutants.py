"""Faults in the functions of the database are noticed."""

from __future__ import annotations

import pytest

from coord.stores.postgresql import PostgreSQLStore, schema
from tests.stores.mutants import QUIETLY, SwapMutant, must_be_noticed
from tests.stores.postgresql.conftest import new_schema
from tests.support.levels import some
from tests.support.postgresql_server import Server

RENEWED = (
    "WHERE l.role = a.role AND l.holder = a.holder AND l.token = a.token AND l.beat < a.beat\n"
)
RELEASED = (
    "WHERE l.role = p_role AND l.holder = p_holder\n    AND l.token = p_token AND l.beat < p_beat"
)
MUTANTS = [
    SwapMutant("any row is expected", "claim", "WHEN p_expected AND NOT", "WHEN false AND NOT"),
    SwapMutant(
        "a duplicate is applied",
        "claim",
        "old.holder = p_holder AND p_beat > old.beat",
        "old.holder = p_holder",
        "mine_needs_a_new_beat",
    ),
    SwapMutant("nobody takes over", "claim", "OR p_takeover\n", "\n"),
    SwapMutant(
        "a paused role is claimed",
        "claim",
        "WHEN old.holder = '{paused}' THEN 0\n",
        "\n",
        "nobody_claims_a_paused_role",
    ),
    SwapMutant("the floor is ignored", "claim", "(old.token, p_floor, ", "(old.token, ", "floor"),
    SwapMutant(
        "a token falls",
        "claim",
        "greatest(old.token, p_floor, ",
        "greatest(p_floor, ",
        guarded=True,
    ),
    SwapMutant(
        "the clock takes over too early",
        "claim",
        "clock - old.expires_at) > p_skew",
        "clock - old.expires_at) > 0 * p_skew",
        "takeover_waits_for_the_skew",
    ),
    SwapMutant(
        "everybody's reason is believed",
        "claim",
        "WHEN old.holder = p_holder AND old.token = p_lost_token\n",
        "WHEN old.token = p_lost_token\n",
        "who_takes_over_closes_the_term_that_ran_out",
    ),
    SwapMutant(
        "a stranger renews",
        "renew",
        RENEWED,
        RENEWED.replace("AND l.holder = a.holder ", ""),
        "renew_is_guarded",
    ),
    SwapMutant(
        "an older term renews",
        "renew",
        RENEWED,
        RENEWED.replace("AND l.token = a.token ", ""),
        "renew_is_guarded",
    ),
    SwapMutant(
        "a duplicate renewal is applied",
        "renew",
        RENEWED,
        RENEWED.replace("<", "<="),
        "a_duplicate_renewal_changes_nothing",
    ),
    SwapMutant(
        "a renewal shortens the lease",
        "renew",
        "greatest(l.expires_at, clock + make_interval(secs => a.ttl))",
        "clock + make_interval(secs => a.ttl)",
        "a_renewal_never_shortens",
    ),
    SwapMutant(
        "an info is lost",
        "renew",
        "coalesce(a.info, l.info)",
        "l.info",
        "renew_may_replace_the_info",
    ),
    SwapMutant(
        "a refused renewal keeps its text",
        "renew",
        " AND a.role = ANY (done)",
        "",
        "nobody_keeps_a_text_under_an_older_token",
    ),
    SwapMutant(
        "a stranger releases",
        "release",
        RELEASED,
        RELEASED.replace(" AND l.holder = p_holder", ""),
        "release_is_guarded",
    ),
    SwapMutant(
        "an older term releases",
        "release",
        RELEASED,
        RELEASED.replace("AND l.token = p_token ", ""),
        "release_is_guarded",
    ),
    SwapMutant(
        "a duplicate release is applied",
        "release",
        RELEASED,
        RELEASED.replace("<", "<="),
        "release_is_guarded",
    ),
    SwapMutant(
        "nothing lingers",
        "release",
        "lingers boolean := p_linger > 0",
        "lingers boolean := false",
        "linger",
    ),
    SwapMutant(
        "a release keeps another text",
        "release",
        "VALUES (p_role, p_keep)",
        "VALUES (p_role, p_role)",
        "a_release_may_replace_the_kept_text",
    ),
    SwapMutant(
        "an override of another holder",
        "override",
        "AND l.holder IS NOT DISTINCT FROM p_expected_holder AND",
        "AND",
        "an_override_needs_every_part_of_what_it_expects",
    ),
    SwapMutant(
        "an override of another beat",
        "override",
        "AND l.beat = p_expected_beat FOR",
        "FOR",
        "an_override_needs_every_part_of_what_it_expects",
    ),
    SwapMutant(
        "an override sets the ttl of a held role",
        "override",
        "CASE WHEN l.holder IS NULL THEN p_ttl ELSE l.ttl END",
        "p_ttl",
        "an_operator_revokes_a_lease_which_runs_out_before_another_takes_it",
    ),
    SwapMutant(
        "a revoked lease runs out at once",
        "override",
        "ELSE l.expires_at END",
        "ELSE clock END",
        "an_operator_revokes_a_lease_which_runs_out_before_another_takes_it",
    ),
    SwapMutant(
        "a new row does not begin above the floor",
        "claim",
        "IF lowest > last THEN",
        "IF false THEN",
        "a_retired_role_has_no_row_and_its_next_token_is_higher",
    ),
    SwapMutant(
        "a row that is paused begins below the floor",
        "override",
        "WHERE l.role = p_role AND l.token < {schema}.floor_of_{version}(p_role)",
        "WHERE false",
        "a_retired_role_that_is_paused_keeps_its_tokens_rising",
    ),
    SwapMutant(
        "a row at another revision is deleted",
        "retire",
        "ON l.role = a.role AND l.holder IS NULL AND l.token = a.token AND l.beat = a.beat",
        "ON l.role = a.role",
        "only_a_vacant_row_that_was_seen_and_is_old_enough_is_deleted",
    ),
    SwapMutant(
        "a row that was used since is deleted",
        "retire",
        " AND l.beat = a.beat",
        "",
        "only_a_vacant_row_that_was_seen_and_is_old_enough_is_deleted",
    ),
    SwapMutant(
        "a row that was just used is deleted",
        "retire",
        "AND extract(epoch FROM l.renewed_at)::float8 < a.before",
        "",
        "only_a_vacant_row_that_was_seen_and_is_old_enough_is_deleted",
    ),
    SwapMutant(
        "a kept text is deleted",
        "retire",
        " AND k.content <> ''",
        " AND k.content = ''",
        "a_role_that_keeps_a_text_is_not_deleted",
    ),
]


def template_of(mutant: SwapMutant) -> str:
    """Return the name of the template that creates the function."""
    return "FLOORS" if mutant.place == "retire" else "FUNCTIONS"


def mutated(mutant: SwapMutant) -> str:
    """Return the template that creates the function, with the fault in it."""
    template: str = getattr(schema, template_of(mutant))
    begin = template.index(f"FUNCTION {{schema}}.{mutant.place}_{{version}}")
    end = template.index("END $$;", begin)
    function = template[begin:end]
    # The same condition is in the lock and in the write of a renewal: the fault is in both.
    condition = mutant.old.removeprefix("WHERE ").strip()
    if mutant.old == RENEWED:
        changed = mutant.new.removeprefix("WHERE ").strip()
        assert function.count(condition) == 2
        return template[:begin] + function.replace(condition, changed) + template[end:]
    return template[:begin] + mutant.apply(function) + template[end:]


@QUIETLY
@pytest.mark.parametrize(
    "mutant",
    some(
        MUTANTS,
        lambda mutant: MUTANTS.index(mutant) % 3 == 0,
        name=lambda mutant: f"{mutant.place}: {mutant.name}",
    ),
)
def test_a_fault_in_a_function_is_noticed(
    mutant: SwapMutant, postgresql_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, template_of(mutant), mutated(mutant))
    must_be_noticed(mutant, PostgreSQLStore, new_schema(postgresql_server))
