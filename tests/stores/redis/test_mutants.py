"""Faults in the Lua scripts are noticed."""

from __future__ import annotations

import pytest

from coord.stores.redis import RedisStore, scripts
from tests.stores.mutants import QUIETLY, SwapMutant, must_be_noticed
from tests.support.levels import some

MUTANTS = [
    SwapMutant("any row is expected", "CLAIM", "if not (seen and free)", "if not free"),
    SwapMutant(
        "a duplicate of a claim is applied",
        "CLAIM",
        "[2] and beat > r.b",
        "[2]",
        "mine_needs_a_new_beat",
    ),
    SwapMutant(
        "a holder has no way back",
        "CLAIM",
        "or mine or",
        "or",
        "mine_is_claimed_anew_with_a_new_token",
    ),
    SwapMutant("nobody takes over", "CLAIM", "or ARGV[9] == '1' or", "or"),
    SwapMutant(
        "a paused role is claimed",
        "CLAIM",
        "r.h ~= 'coord:paused' and ",
        "",
        "nobody_claims_a_paused_role",
    ),
    SwapMutant("the floor is ignored", "CLAIM", "(r.t, tonumber(ARGV[11]), ", "(r.t, ", "floor"),
    SwapMutant("a token falls", "CLAIM", "math.max(r.t, ", "math.max("),
    SwapMutant(
        "the clock takes over too early",
        "CLAIM",
        "now - r.x > tonumber(ARGV[10])",
        "now > r.x",
        "takeover_waits_for_the_skew",
    ),
    SwapMutant(
        "the clock takes over with skew off",
        "CLAIM",
        "ARGV[10] ~= '' and r.h and now - r.x > tonumber(ARGV[10])",
        "r.h and now > r.x",
        "takeover_by_the_stores_clock",
    ),
    SwapMutant(
        "a claim forgets the kept text",
        "CLAIM",
        "redis.call('SADD', KEYS[3], ARGV[1])",
        "redis.call('SADD', KEYS[3], ARGV[1]) redis.call('HDEL', KEYS[1], 'k')",
        "the_kept_text_outlives_terms",
    ),
    SwapMutant(
        "everybody's reason is believed",
        "CLAIM",
        "old.h == ARGV[2] and old.t == ",
        "old.t == ",
        "who_takes_over_closes_the_term_that_ran_out",
    ),
    SwapMutant("a stranger renews", "RENEW", "r.h ~= ARGV[a + 1] or ", "", "renew_is_guarded"),
    SwapMutant(
        "an older term renews", "RENEW", "or r.t ~= tonumber(ARGV[a + 2]) ", "", "renew_is_guarded"
    ),
    SwapMutant(
        "a duplicate renewal is applied",
        "RENEW",
        "ARGV[a + 3]) <= r.b",
        "ARGV[a + 3]) < r.b",
        "a_duplicate_renewal_changes_nothing",
    ),
    SwapMutant(
        "a renewal shortens the ttl",
        "RENEW",
        "if tonumber(ARGV[a + 4]) > tonumber(r.l) then",
        "if true then",
        "a_renewal_never_shortens",
    ),
    SwapMutant(
        "a renewal shortens the lease",
        "RENEW",
        "math.max(r.x, now + ttl)",
        "now + ttl",
        "a_renewal_never_shortens",
    ),
    SwapMutant(
        "a refused renewal keeps its text",
        "RENEW",
        "    results[n - 1] = reply(0, r)",
        "    redis.call('HSET', KEYS[n], 'k', string.sub(ARGV[a + 7], 2)) results[n - 1] = reply(0, r)",
        "nobody_keeps_a_text_under_an_older_token",
    ),
    SwapMutant(
        "each renewal replaces the text",
        "RENEW",
        "if ARGV[a + 7] ~= '' then",
        "if true then",
        "a_renewal_may_replace_the_kept_text",
    ),
    SwapMutant(
        "an info is lost",
        "RENEW",
        "if ARGV[a + 6] ~= '' then",
        "if false then",
        "renew_may_replace_the_info",
    ),
    SwapMutant("a stranger releases", "RELEASE", "r.h == ARGV[2] and ", "", "release_is_guarded"),
    SwapMutant(
        "an older term releases",
        "RELEASE",
        "r.t == tonumber(ARGV[3]) and ",
        "",
        "release_is_guarded",
    ),
    SwapMutant(
        "a duplicate release is applied", "RELEASE", " and beat > r.b", "", "release_is_guarded"
    ),
    SwapMutant("nothing lingers", "RELEASE", "if linger > 0 then", "if false then", "linger"),
    SwapMutant(
        "a successor keeps the info",
        "RELEASE",
        "'0', '{}' end",
        "'0', r.i end",
        "a_role_is_handed_over_to_one_candidate",
    ),
    SwapMutant(
        "a release keeps no text",
        "RELEASE",
        "if ARGV[11] ~= '' then",
        "if false then",
        "a_release_may_replace_the_kept_text",
    ),
    SwapMutant(
        "the end of a term is not written",
        "RELEASE",
        "close_term(KEYS[2]",
        "tostring(KEYS[2]",
        "a_term_is_remembered_with_its_end",
    ),
    SwapMutant(
        "an override of another holder",
        "OVERRIDE",
        "(r.h or '') ~= string.sub(ARGV[2], 2) or ",
        "",
        "an_override_needs_every_part_of_what_it_expects",
    ),
    SwapMutant(
        "an override of another beat",
        "OVERRIDE",
        " or r.b ~= tonumber(ARGV[4])",
        "",
        "an_override_needs_every_part_of_what_it_expects",
    ),
    SwapMutant(
        "an override sets the ttl of a held role",
        "OVERRIDE",
        "if not r.h then",
        "if true then",
        "an_operator_revokes_a_lease_which_runs_out_before_another_takes_it",
    ),
    SwapMutant(
        "an override ends no term",
        "OVERRIDE",
        "close_term(KEYS[2]",
        "tostring(KEYS[2]",
        "the_history_names_who_ended_a_term",
    ),
    SwapMutant(
        "a retired role forgets its tokens",
        "RETIRE",
        "floor = math.max(floor, r.t)",
        "floor = floor",
        "a_retired_role_has_no_row_and_its_next_token_is_higher",
    ),
    SwapMutant(
        "a held role is retired",
        "RETIRE",
        " and not r.h and ARGV[a + 2] == '='",
        "",
        "only_a_vacant_row_that_was_seen_and_is_old_enough_is_deleted",
    ),
    SwapMutant(
        "a role that was just used is retired",
        "RETIRE",
        "    and r.w < tonumber(ARGV[a + 5]) and",
        "    and",
        "only_a_vacant_row_that_was_seen_and_is_old_enough_is_deleted",
    ),
    SwapMutant(
        "a text is forgotten",
        "RETIRE",
        " and (not kept or kept == '')",
        "",
        "a_role_that_keeps_a_text_is_not_deleted",
    ),
]


@QUIETLY
@pytest.mark.parametrize(
    "mutant",
    some(
        MUTANTS,
        lambda mutant: MUTANTS.index(mutant) % 3 == 0,
        name=lambda mutant: f"{mutant.place}: {mutant.name}",
    ),
)
def test_a_fault_in_a_script_is_noticed(
    mutant: SwapMutant, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, mutant.place, mutant.apply(getattr(scripts, mutant.place)))
    must_be_noticed(mutant, RedisStore, url)
