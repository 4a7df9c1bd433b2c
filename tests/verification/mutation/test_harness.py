"""What the mutation tests themselves must notice, shown on mutants that are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.verification.mutation.mutant import BadMutant, Mutant
from tests.verification.mutation.runner import Outcome, Runner

PLACE = "coord.runtime.retry:full_jitter"
FEEDS = ("stores/test_feeds.py::test_the_wait_before_a_new_feed_grows_from_failure_to_failure",)
GOOD = Mutant("grows by halves", PLACE, "first * 2.0", "first * 1.5", FEEDS)
HEARTBEATS = (
    "services/test_heartbeat_timing.py::test_the_wait_after_a_failure_grows_and_starts_again_after_a_success",
)
HANGS = Mutant(
    "the batch is never sent", "coord.stores.batching:RenewalBatcher._send",
    "await self._send_some(loop)", "await asyncio.sleep(86_400)",
    ("stores/test_batching_in_turn.py::test_who_is_cancelled_leaves_the_others_alone",),
)  # fmt: skip
SWALLOWED = "coord.stores.batching:RenewalBatcher._send_some"
BATCHES = (
    "stores/test_batching_in_turn.py::"
    "test_a_batch_of_renewals_may_take_as_long_as_its_most_patient_member",
)


@pytest.fixture(scope="module")
def mutant_runner() -> Iterator[Runner]:
    with Runner() as started:
        yield started


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"old": "this is not there"}, "occurs 0 times"),
        ({"old": "most", "new": "first"}, "occurs [2-9] times"),
        ({"place": "coord.runtime.retry:Backoff.gone"}, "has 0 definitions"),
        ({"place": "coord.runtime.gone:full_jitter"}, "there is no module"),
        ({"new": "first * ("}, "does not compile"),
        ({"new": "first * 2.00"}, "no effect"),
        ({"old": "failures: int,", "new": "failures: int, extra: int,"}, "signatures"),
        ({"old": "def full_jitter", "new": "async def full_jitter"}, "signatures"),
        ({"old": "def full_jitter", "new": "@staticmethod\ndef full_jitter"}, "signatures"),
        ({"new": "frist * 2.0"}, "unknown names: frist"),
        ({"tests": ()}, "no tests"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mutant_that_does_not_apply_fails(change: dict[str, str], message: str) -> None:
    with pytest.raises(BadMutant, match=message):
        replace(GOOD, **change).check()  # type: ignore[arg-type]


def test_a_fault_that_a_test_notices_is_caught(mutant_runner: Runner) -> None:
    verdict = mutant_runner.run(GOOD)
    assert verdict.outcome is Outcome.CAUGHT, verdict
    assert "test_the_wait_before_a_new_feed" in verdict.detail


def test_a_fault_that_no_test_notices_survives(mutant_runner: Runner) -> None:
    unrelated = (
        "services/test_heartbeat_timing.py::test_the_ttl_counts_from_the_request_and_not_from_the_answer",
    )
    assert mutant_runner.run(replace(GOOD, tests=unrelated)).outcome is Outcome.SURVIVED


@pytest.mark.parametrize(
    ("place", "old", "new", "tests"),
    [
        (PLACE, "first * 2.0", "first * 'two'", HEARTBEATS),
        (PLACE, "rng.uniform(0, longest)", "rng.gone(0, longest)", HEARTBEATS),
        # The batcher treats any exception of a store as an unknown outcome: the test fails, and
        # without the record of the crash it would look as if it had noticed the fault.
        (SWALLOWED, "[queued.renewal for queued in batch]", "[batch.gone]", BATCHES),
        # The crash is in the caller, because the mutant returns what no caller expects.
        (PLACE, "rng.uniform(0, longest)", "None", HEARTBEATS),
    ],
    ids=["TypeError", "AttributeError", "swallowed", "in the caller"],
)
def test_a_crash_of_the_mutant_itself_does_not_count(
    mutant_runner: Runner, place: str, old: str, new: str, tests: tuple[str, ...]
) -> None:
    mutant = Mutant("crashes", place, old, new, tests)
    verdict = mutant_runner.run(mutant)
    assert verdict.outcome is Outcome.CRASHED, verdict


def test_a_test_that_does_not_end_does_not_count(
    mutant_runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.verification.mutation.runner.TEST_LIMIT", 2)
    assert mutant_runner.run(HANGS).outcome is Outcome.HUNG


@pytest.mark.parametrize("test", ["stores/test_gone.py", "stores/test_feeds.py::test_gone"])
def test_tests_that_are_not_there_do_not_count(mutant_runner: Runner, test: str) -> None:
    assert mutant_runner.run(replace(GOOD, tests=(test,))).outcome is Outcome.NOT_RUN


def test_a_process_that_a_test_starts_has_the_mutant(mutant_runner: Runner) -> None:
    test = "services/test_registry_lifetime.py::test_a_role_is_released_when_the_process_ends[exit-own]"
    mutant = Mutant(
        "nothing is closed at exit", "coord.runtime.process:close_at_exit",
        "_closed_at_exit.add(thing)", "pass", (test,),
    )  # fmt: skip
    assert mutant_runner.run(mutant).outcome is Outcome.CAUGHT
