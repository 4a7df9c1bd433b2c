"""Mutants of coord.runtime."""

from __future__ import annotations

from tests.verification.mutation.mutant import Mutant

CLOCK = "runtime/test_clock.py"
PROCESS = "runtime/test_process.py"
RETRY = "runtime/test_retry.py"
THREADS = "runtime/test_threads.py"
TIMERS = "runtime/test_timers.py"
SERIAL = "stores/test_batching_in_turn.py"

MUTANTS = [
    Mutant(
        "the backoff of feeds is never reset",
        "coord.runtime.retry:reconnecting",
        "backoff.reset()",
        "pass",
        (
            "stores/test_feeds.py::"
            "test_a_feed_that_has_yielded_a_row_starts_with_the_shortest_wait_again",
        ),
    ),
    Mutant(
        "a feed that ends is not opened again",
        "coord.runtime.retry:reconnecting",
        "pause = 0.0\n        error",
        "pause = 1e9\n        error",
        (f"{RETRY}::test_the_wait_doubles_up_to_its_limit_and_starts_again_after_a_row",),
    ),
    Mutant(
        "a refusal is retried as soon as an outage",
        "coord.runtime.retry:reconnecting",
        "error, pause = refusal, refused_pause",
        "error = refusal",
        (f"{RETRY}::test_a_refusal_waits_longer",),
    ),
    Mutant(
        "waits grow without a limit",
        "coord.runtime.retry:full_jitter",
        "min(most, first * 2.0 ** min(failures - 1, 100))",
        "first * 2.0 ** min(failures - 1, 100)",
        ("stores/test_feeds.py::test_the_wait_before_a_new_feed_grows_from_failure_to_failure",),
    ),
    Mutant(
        "the wait after the first failure is doubled",
        "coord.runtime.retry:full_jitter",
        "failures - 1",
        "failures",
        ("stores/test_feeds.py::test_the_wait_before_a_new_feed_grows_from_failure_to_failure",),
    ),
    Mutant(
        "a boot id that is mounted over is believed",
        "coord.runtime.clock:read_kernel_clock",
        "if problem := _covered_by(mounts):",
        "if (problem := _covered_by(mounts)) and False:",
        (f"{CLOCK}::test_what_is_mounted_over_the_boot_id",),
    ),
    Mutant(
        "a problem that may pass is kept for the life of the process",
        "coord.runtime.clock:kernel_clock",
        "if reading.temporary:",
        "if False:",
        (f"{CLOCK}::test_a_problem_that_may_pass_is_not_kept",),
    ),
    Mutant(
        "processes with unknown clocks share a name",
        "coord.runtime.clock:_clock_of",
        "UNKNOWN + os.urandom(16).hex()",
        "UNKNOWN",
        (f"{CLOCK}::test_unknown_clocks_of_two_processes_have_two_names",),
    ),
    Mutant(
        "the offsets of a time namespace are ignored",
        "coord.runtime.clock:_time_offsets",
        'return offsets["boottime"], offsets["monotonic"]',
        'return 0 * offsets["boottime"], 0.0',
        (f"{CLOCK}::test_the_offsets_of_a_time_namespace",),
    ),
    Mutant(
        "a timer with an earlier deadline is not set again",
        "coord.runtime.timers:DeadlineTimer.add",
        "if self._timer is None or waiting.deadline < self._timer.when():",
        "if self._timer is None:",
        (f"{SERIAL}::test_each_renewal_gives_up_in_its_own_time",),
    ),
    Mutant(
        "a turn that was cancelled is counted as free",
        "coord.runtime.timers:LightSemaphore.release",
        "turn.cancel()  # it was never admitted\n            return",
        "turn.cancel()",
        (f"{SERIAL}::test_who_is_cancelled_takes_no_turn_with_it",),
    ),
    Mutant(
        "the idle thread of the parent is used in a child",
        "coord.runtime.threads:start_thread_soon",
        "if generation == process.fork_generation:",
        "if True:",
        (f"{THREADS}::test_a_child_starts_a_thread_of_its_own",),
    ),
    Mutant(
        "no idle thread is kept",
        "coord.runtime.threads:start_thread_soon",
        "while _idle:",
        "while False:",
        (f"{THREADS}::test_the_thread_is_used_again_under_the_name_of_whom_it_works_for",),
    ),
    Mutant(
        "SIGTERM releases nothing",
        "coord.runtime.process:close_at_exit",
        "exit_on_signals()",
        "pass",
        (f"{PROCESS}::test_the_end_of_a_process_releases",),
    ),
    Mutant(
        "children of multiprocessing release nothing at their end",
        "coord.runtime.process:close_at_exit",
        'if "multiprocessing" in sys.modules:',
        "if False:",
        (f"{PROCESS}::test_multiprocessing_children_release_at_their_end",),
    ),
    Mutant(
        "a forked child keeps what its parent holds",
        "coord.runtime.process:_in_child",
        "thing.after_fork()",
        "pass",
        (f"{PROCESS}::test_a_fork_drops_everything_and_the_parent_keeps_it",),
    ),
    Mutant(
        "the offset of a time namespace is added",
        "coord.runtime.clock:_clock_of",
        "total_seconds() - offset",
        "total_seconds() + offset",
        ("runtime/test_clock.py",),
    ),
]
