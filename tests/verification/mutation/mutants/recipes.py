"""Mutants of coord.recipes, and of what it takes from coord.core."""

from __future__ import annotations

from tests.verification.mutation.mutant import Mutant

SHARES = ("recipes/test_share_simulation.py",)
SLOTS = ("recipes/test_slots.py::test_each_free_slot_is_taken_and_kept",)
TURNS = ("recipes/test_turns.py",)
STEPS_DOWN = (
    "recipes/test_shares.py::"
    "test_a_member_that_was_asked_to_step_down_from_a_shard_does_not_take_it_again_at_once",
)

MUTANTS = [
    Mutant(
        "a candidate looks at one slot only",
        "coord.recipes.slot_elector:SlotElector._free_slot",
        "for number in range(self.slots):",
        "for number in range(1):",
        SLOTS,
    ),
    Mutant(
        "a candidate goes on after a claim that is not answered",
        "coord.recipes.slot_elector:SlotElector._try",
        "await asyncio.wait({inner.task})",
        "await asyncio.sleep(0)",
        (
            "recipes/test_slots.py::"
            "test_an_unanswered_claim_is_settled_before_another_slot_is_claimed",
        ),
    ),
    Mutant(
        "a holder gives up its slot after a while",
        "coord.recipes.slot_elector:SlotElector._try",
        "await inner.term.lost",
        "await asyncio.sleep(33)",
        SLOTS,
    ),
    Mutant(
        "the candidates for slots that cannot read how many there are read at the same moments",
        "coord.recipes.slot_elector:SlotElector._agree",
        "self._backoff.next()",
        "RETRY_FIRST",
        (
            "recipes/test_slots.py::"
            "test_a_candidate_that_cannot_read_the_number_of_slots_waits_with_jitter",
        ),
    ),
    Mutant(
        "every member takes one shard more than its share",
        "coord.core.sharing:targets",
        "each + (rank < more)",
        "each + (rank < len(counts))",
        SHARES,
    ),
    Mutant(
        "a shard whose claim was refused is never claimed again",
        "coord.recipes.share_engine:ShareEngine._rest",
        "self._loop.time() + seconds",
        "self._loop.time() + 1_000 * seconds",
        ("recipes/test_shares.py::test_a_shard_whose_claim_was_refused_is_claimed_again_soon",),
    ),
    Mutant(
        "a member that was asked to step down from a shard claims it again at once",
        "coord.recipes.share_engine:ShareEngine._hold",
        "self._rest(shard, cooldown)",
        "pass",
        STEPS_DOWN,
    ),
    Mutant(
        "a member hands a shard to one that rests from it",
        "coord.recipes.share_engine:ShareEngine._give",
        "if position in resting or holding is None:",
        "if holding is None:",
        STEPS_DOWN,
    ),
    Mutant(
        "nobody takes a shard that a member rests from",
        "coord.recipes.share_engine:ShareEngine._act",
        "sharing.substitutes(owners, present, resting, self.id)",
        "()",
        STEPS_DOWN,
    ),
    Mutant(
        "nobody hands shards to a member that has joined",
        "coord.recipes.share_engine:ShareEngine._act",
        "self._give(plan.gives[0] if plan.gives else None)",
        "self._give(None)",
        SHARES,
    ),
    Mutant(
        "a member does not claim what the one whose turn it is leaves",
        "coord.recipes.share_engine:ShareEngine._act",
        "(*plan.claims, *late)",
        "plan.claims",
        TURNS,
    ),
    Mutant(
        "the slot of a killed holder stays taken",
        "coord.recipes.shard_rows:ShardRows.owner",
        "if row.lease.vacant or row.expired:",
        "if row.lease.vacant:",
        TURNS,
    ),
]
