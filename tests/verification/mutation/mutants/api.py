"""Mutants of coord.api, and of coord.fencing and coord.metrics, which stand beside it."""

from __future__ import annotations

from tests.verification.mutation.mutant import Mutant

HEALTH = "api/test_health.py"
LEADER_ONLY = "api/test_leader_only.py"
LEADERSHIP = "api/test_leadership.py"
FENCING = "test_fencing.py"

MUTANTS = [
    Mutant(
        "the lag of the last coordinator counts",
        "coord.api.health:health",
        "lag = max(lag, _lag(session, now))",
        "lag = _lag(session, now)",
        (f"{HEALTH}::test_the_largest_lag_of_several_loops_counts",),
    ),
    Mutant(
        "a stalled job of a lost term stays wedged after it has drained",
        "coord.api.health:_problems",
        "and (lifecycle.draining or not term.lost.is_set())",
        "",
        (f"{HEALTH}::test_a_stalled_job_of_a_term_that_has_drained_is_not_wedged",),
    ),
    Mutant(
        "an outage of the store is wedged",
        "coord.api.health:_problems",
        "and not elector.store_is_silent(now)",
        "",
        (f"{HEALTH}::test_an_outage_is_trouble_and_never_wedged",),
    ),
    Mutant(
        "a long on_elected is wedged while its term lasts",
        "coord.api.health:_problems",
        "and not patient",
        "",
        (f"{HEALTH}::test_an_on_elected_may_take_its_time_while_the_term_stands",),
    ),
    Mutant(
        "a process that does not lead is ok",
        "coord.api.health:_status",
        "any(role.leads for role in roles)",
        "roles",
        (f"{HEALTH}::test_a_leader_a_standby_and_nobody",),
    ),
    Mutant(
        "a call releases its role before at_least has passed",
        "coord.api.guarded_call:GuardedCall._linger",
        "began + self._at_least - time.monotonic()",
        "began - time.monotonic()",
        (f"{LEADER_ONLY}::test_at_least_keeps_a_short_job_from_running_twice",),
    ),
    Mutant(
        "a call leaves its role taken",
        "coord.api.guarded_call:GuardedCall.call",
        "if visit.gives_back:",
        "if False:",
        (f"{LEADER_ONLY}::test_scope_call_releases_after_the_call",),
    ),
    Mutant(
        "a call runs beside one that has lost the role",
        "coord.api.guarded_call:GuardedCall._previous_call_runs",
        "and member.running_jobs > 0",
        "and member.running_jobs < 0",
        ("election/test_term.py::test_nor_does_another_call_when_each_call_claims",),
    ),
    Mutant(
        "a fence lets an older token pass",
        "coord.fencing:Fence.__call__",
        "token < self.newest",
        "token < 0",
        (f"{FENCING}::test_any_callable",),
    ),
    Mutant(
        "a SQL write does not compare tokens",
        "coord.fencing:_statements",
        "OR {field} <= {mark(",
        "OR {field} > 0 OR {field} <= {mark(",
        (f"{FENCING}::test_a_sql_row",),
    ),
    Mutant(
        "the limit of an info is off by one",
        "coord.core.validation:info",
        "> MAX_INFO_BYTES",
        "> 1 + MAX_INFO_BYTES",
        ("api/test_values.py::test_the_limit_of_an_info_is_exact",),
    ),
    Mutant(
        "a fence has no lock",
        "coord.fencing:Fence.__call__",
        "with self._lock:",
        "if self._lock:",
        (f"{FENCING}::test_a_call_that_arrives_while_another_is_under_way_waits",),
    ),
    Mutant(
        "the columns of the key of a SQL write are not checked",
        "coord.fencing:_statements",
        '("key", key), ',
        "",
        (f"{FENCING}::test_names_in_a_sql_write_are_checked",),
    ),
]
