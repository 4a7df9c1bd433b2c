"""Mutants of coord.stores."""

from __future__ import annotations

from tests.verification.mutation.mutant import Mutant

MUTANTS = [
    Mutant(
        "a batch of renewals gets the shortest timeout",
        "coord.stores.batching:RenewalBatcher._send_some",
        "max(queued.deadline for queued in batch)",
        "min(queued.deadline for queued in batch)",
        (
            "stores/test_batching_in_turn.py::"
            "test_a_batch_of_renewals_may_take_as_long_as_its_most_patient_member",
        ),
    ),
    Mutant(
        "swaps with different timeouts share a batch",
        "coord.stores.batching:SwapBatcher._next_batch",
        "elif not batch or queued.timeout == batch[0].timeout:",
        "else:",
        (
            "stores/test_batching.py::"
            "test_each_is_told_when_it_leaves_and_those_of_one_timeout_leave_together",
        ),
    ),
]
