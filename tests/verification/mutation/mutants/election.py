"""Mutants of coord.election."""

from __future__ import annotations

from tests.verification.mutation.mutant import Mutant

ANNOUNCEMENTS = "election/test_announcements.py"
CLAIMANT = "election/test_claimant.py"
CALLBACKS = "election/test_callbacks.py"
ELECTOR = "election/test_elector.py"
HANDOVER = "election/test_handover.py"
OBSERVATIONS = "election/test_observations.py"
REQUESTS = "stores/test_requests.py"
SUPERVISION = "election/test_supervision.py"
TERM = "election/test_term.py"
LEADERSHIP = "api/test_leadership.py"
CLAIMANT = "election/test_claimant.py"

OBSERVE = "election/test_observe.py"
OPERATORS = "election/test_operators.py"
RETIREMENT = "election/test_retirement.py"
TURNS = "election/test_turns.py"

MUTANTS = [
    Mutant(
        "a watcher does not look again soon after a failed read",
        "coord.election.observe:WatchedRoles.read_failed",
        "self._schedule(role, now + FAILED_AGAIN)",
        "pass",
        (f"{OBSERVE}::test_a_leader_is_looked_for_again_after_the_store_was_away",),
    ),
    Mutant(
        "a watcher of all roles does not look again soon after a failed read of all rows",
        "coord.election.observe:WatchedRoles.read_failed",
        "self._vacant_was_read(roles, now + FAILED_AGAIN)",
        "self._vacant_was_read(roles, now + VACANT_AGAIN)",
        (f"{OBSERVE}::test_a_new_role_whose_row_the_feed_has_lost_is_seen_within_half_a_minute",),
    ),
    Mutant(
        "a watcher does not look at a lease that expires earlier than the one before",
        "coord.election.observe:WatchedRoles._schedule",
        "if at < self._read_at.get(role, math.inf):",
        "if role not in self._read_at:",
        (f"{OBSERVE}::test_a_short_lease_after_a_long_one_is_read_again_when_it_expires",),
    ),
    Mutant(
        "a watcher believes forever what a feed has shown",
        "coord.election.observe:LeaderTracker.replace",
        "self._observed = None",
        "pass",
        (f"{OBSERVE}::test_a_write_that_a_feed_has_shown_and_that_was_lost_is_forgotten",),
    ),
    Mutant(
        "a watcher of a vacant role waits for the feed",
        "coord.election.observe:WatchedRoles._has_vacant",
        "return True",
        "return False",
        (f"{OBSERVE}::test_a_new_leader_whose_row_the_feed_has_lost_is_seen_within_half_a_minute",),
    ),
    Mutant(
        "a late answer counts after a newer row of the feed",
        "coord.core.election:Election._outdated",
        "self._observed_at > sent_at.awake",
        "self._observed_at > sent_at.awake + 86_400",
        ("core/test_election.py::test_an_answer_is_no_news_where_a_feed_was_faster",),
    ),
    Mutant(
        "an eviction that is repeated ends a later term",
        "coord.election.operators:evict",
        "held = (row.holder, row.token) == term",
        "held = row.holder is not None and not row.withheld",
        (f"{OPERATORS}::test_an_eviction_that_is_repeated_ends_no_later_term",),
    ),
    Mutant(
        "an operator ends a term that began after the question",
        "coord.election.operators:_check_term",
        "token is None or row.token == token",
        "True",
        ("cli/test_operators.py::test_a_leader_that_was_elected_after_the_question_is_left_alone",),
    ),
    Mutant(
        "a pause ends a term that began after its first look",
        "coord.election.operators:pause",
        "if row.led:",
        "if False:",
        (f"{OPERATORS}::test_a_pause_with_a_token_ends_no_term_that_begins_meanwhile",),
    ),
    Mutant(
        "an operator pauses a slot that does not exist",
        "coord.election.operators:role_row",
        "group is not None and not (row.led or row.paused)",
        "False",
        ("cli/test_slots.py::test_who_changes_a_slot_must_name_one_that_exists",),
    ),
    Mutant(
        "a role that was claimed after it was found unused is retired",
        "coord.core.swaps:retire",
        "return unused and not text and row.revision == operation.expected",
        "return not text",
        (f"{RETIREMENT}::test_a_role_that_is_claimed_meanwhile_stays",),
    ),
    Mutant(
        "the number of slots is retired",
        "coord.election.retirement:unused_roles",
        "if not is_agreement(row)",
        "if True",
        (f"{RETIREMENT}::test_the_number_of_slots_is_not_forgotten",),
    ),
    Mutant(
        "a coordinator that released a role claims it again at once",
        "coord.election.turns:Turns.gave_back",
        "self._until[role] = now + self._pause",
        "self._until[role] = now",
        (f"{TURNS}::test_on_sqlite_one_that_takes_and_gives_back_does_not_starve_the_others",),
    ),
    Mutant(
        "the failed callback of an old term ends the new one",
        "coord.election.lifecycle:TermLifecycle._callback_failed",
        "if self.term is term:",
        "if term:",
        (f"{CALLBACKS}::test_the_failed_callback_of_an_old_term_does_not_end_the_new_one",),
    ),
    Mutant(
        "a child that a callback forked gets no callbacks",
        "coord.election.callbacks:ThreadDispatcher.forget",
        "self._running = threading.Lock()",
        'self._running = getattr(self, "_running", None) or threading.Lock()',
        (
            f"{CALLBACKS}::test_the_same_leadership_gets_callbacks_in_a_child_that_its_callback_forked",
        ),
    ),
    Mutant(
        "a callback that raises KeyboardInterrupt does not end its term",
        "coord.election.callbacks:CallbackRunner._call",
        "except BaseException as err:",
        "except Exception as err:",
        (f"{CALLBACKS}::test_a_base_exception_is_a_failed_callback",),
    ),
    Mutant(
        "later on_elected callbacks are called after one that failed",
        "coord.election.callbacks:CallbackRunner._call",
        "if elected:\n                    break",
        "if False:\n                    break",
        (f"{LEADERSHIP}::test_an_error_in_on_elected_ends_the_term_and_is_logged", CALLBACKS),
    ),
    Mutant(
        "the role is released while on_lost runs",
        "coord.election.callbacks:CallbackRunner.lost",
        'await self._call(self._callbacks.of_kind("on_lost"), term, term, term.reason)\n'
        "            term._on_idle(ended.set)",
        "term._on_idle(ended.set)\n"
        '            await self._call(self._callbacks.of_kind("on_lost"), term, term, term.reason)',
        (f"{LEADERSHIP}::test_the_role_passes_on_only_when_the_work_has_ended",),
    ),
    Mutant(
        "a term forgets that somebody saw its end",
        "coord.election.term:Term._check_clock",
        "if late >= 0 or stalled >= 0:\n            self._over = True\n        return self._over",
        "return late >= 0 or stalled >= 0",
        (f"{ELECTOR}::test_a_term_that_somebody_saw_end_never_comes_back",),
    ),
    Mutant(
        "a term does not read the clock",
        "coord.election.term:Term.held",
        "return not self._check_clock()",
        "return True",
        (f"{ELECTOR}::test_is_leader_stays_right_while_the_loop_is_blocked",),
    ),
    Mutant(
        "a forked child believes in its parent's term",
        "coord.election.term:Term.held",
        "if self._over or self._generation != process.fork_generation:",
        "if self._over:",
        (f"{TERM}::test_a_term_that_no_candidate_knows_is_over_in_a_forked_child",),
    ),
    Mutant(
        "the reason of a loss is the one found last",
        "coord.election.term:Term._check_clock",
        "if stalled >= max(late, 0.0):",
        "if stalled >= 0.0:",
        (f"{TERM}::test_whichever_ran_out_first_is_the_reason",),
    ),
    Mutant(
        "progress of one call counts for all calls",
        "coord.election.term:Term.progress",
        "[own] if own is not None else list(self._watched.values())",
        "list(self._watched.values())",
        (f"{TERM}::test_progress_of_one_call_does_not_speak_for_another",),
    ),
    Mutant(
        "a report of progress gives no more time",
        "coord.election.term:Progress.progressed",
        "self._due = now + self._at_most",
        "self._due = max(self._due, 0.0)",
        (f"{TERM}::test_progress_keeps_the_role_and_the_end_of_the_call_ends_the_count[memory]",),
    ),
    Mutant(
        "a coroutine that is cancelled for its lost term does not say so",
        "coord.election.term:run_async_under_term",
        "if task.cancelled():",
        "if False:",
        (f"{TERM}::test_a_coroutine_that_stands_still_is_cancelled",),
    ),
    Mutant(
        "an order for an earlier term is carried out",
        "coord.core.announcements:decide_handover",
        "request.token == token and",
        "",
        (f"{HANDOVER}::test_an_order_for_an_earlier_term_is_not_carried_out",),
    ),
    Mutant(
        "a preferred candidate does not wait for min_tenure",
        "coord.election.elector:Elector.check_requests",
        "            min_tenure=options.min_tenure,\n",
        "            min_tenure=0.0,\n",
        (f"{HANDOVER}::test_who_is_preferred_gets_the_role_and_not_before_the_term_has_lasted",),
    ),
    Mutant(
        "every leader gives way to a preferred candidate that has died",
        "coord.election.session:Session.gave_way",
        "self._requests.forget_candidate(role, handover.to)",
        "pass",
        (f"{HANDOVER}::test_leaders_give_way_once_to_a_preferred_candidate_that_does_not_come",),
    ),
    Mutant(
        "a watcher keeps a time for each earlier term",
        "coord.election.observe:WatchedRoles._schedule",
        "len(self._reads) > 2 * len(self._read_at) + MAX_OUTDATED",
        "False",
        (
            f"{OBSERVE}::"
            "test_a_watcher_forgets_when_the_leases_of_earlier_leaders_would_have_expired",
        ),
    ),
    Mutant(
        "a refused store is asked again at once",
        "coord.election.results:retry_delay",
        "full_jitter(failures, 0.05, min(5.0, ttl / 3))",
        "full_jitter(failures, 0.0005, 0.001)",
        (f"{ELECTOR}::test_a_failing_store_is_not_called_in_a_tight_loop",),
    ),
    Mutant(
        "a loop that is cancelled keeps its lease",
        "coord.election.elector:Elector._cancelled",
        "if held:",
        "if False:",
        (f"{ELECTOR}::test_a_cancelled_loop_gives_back_what_it_holds",),
    ),
    Mutant(
        "a task that fails ends the candidate",
        "coord.election.elector:Elector._run",
        "await self._sleep(self._failed(err))",
        "return self._failed(err) and None",
        (f"{SUPERVISION}::test_a_task_that_fails_is_logged_and_goes_on",),
    ),
    Mutant(
        "an observation starts again with each candidate",
        "coord.election.elector:Elector._done",
        "self._session.observations.keep(self.election.role, self.election.observation)",
        "pass",
        (f"{OBSERVATIONS}::test_a_caller_every_second_gets_a_dead_holders_role",),
    ),
    Mutant(
        "an observation of another revision counts",
        "coord.election.observations:_earlier",
        "other is None or other.revision != observation.revision",
        "other is None",
        (f"{OBSERVATIONS}::test_the_earlier_time_counts_for_one_revision",),
    ),
    Mutant(
        "a session keeps all observations forever",
        "coord.election.observations:Observations.keep",
        "if len(self._kept) > MAX_ROLES:",
        "if False:",
        (f"{OBSERVATIONS}::test_a_session_keeps_a_bounded_number",),
    ),
    Mutant(
        "an observation of another machine's clock counts",
        "coord.election.observations:_read",
        'and row["clock"] == kernel.boot_id',
        "",
        (f"{OBSERVATIONS}::test_what_is_no_observation_of_this_lease",),
    ),
    Mutant(
        "a candidate that is alone waits for others",
        "coord.election.jitter:takeover_delay",
        "if waiting <= 1:",
        "if waiting < 1:",
        (f"{ANNOUNCEMENTS}::test_who_is_alone_lets_nobody_go_first",),
    ),
    Mutant(
        "of many candidates none claims at once when a lease is released",
        "coord.election.jitter:release_delay",
        "if chance < at_once:",
        "if False:",
        (f"{ANNOUNCEMENTS}::test_of_many_that_wait_few_ask_before_they_can_have_heard[200]",),
    ),
    Mutant(
        "all candidates claim at once when a lease is released",
        "coord.election.jitter:release_delay",
        "if chance < at_once:",
        "if True:",
        (f"{ANNOUNCEMENTS}::test_of_many_that_wait_few_ask_before_they_can_have_heard[200]",),
    ),
    Mutant(
        "the same candidates claim at once after each term",
        "coord.election.elector:Elector._row_seen",
        "if waiting and not lease.vacant:",
        "if False:",
        (f"{REQUESTS}::test_with_each_term_another_candidate_may_be_the_first_to_claim",),
    ),
    Mutant(
        "every candidate of a process wakes when a lease is released",
        "coord.election.elector:Elector._row_seen",
        "if not self._send_due_now():",
        "if not self._send_due_now() or True:",
        (f"{REQUESTS}::test_a_candidate_that_lets_others_go_first_sleeps_on",),
    ),
    Mutant(
        "a candidate sleeps for the delay that it drew before it knew how many wait",
        "coord.election.elector:Elector._counted",
        "if not self._send_due_now():",
        "if False:",
        (f"{REQUESTS}::test_a_new_number_of_candidates_counts_for_the_lease_that_is_watched",),
    ),
    Mutant(
        "a candidate that lets others go first sleeps as long as before",
        "coord.election.elector:Elector._send_due_now",
        "self._set_timer(action.seconds)",
        "pass",
        (f"{REQUESTS}::test_a_candidate_that_lets_others_go_first_sleeps_on",),
    ),
    Mutant(
        "a forked child keeps the candidates of its parent",
        "coord.election.unique_service:UniqueServices.after_fork",
        "self._start()",
        "pass",
        (f"{CLAIMANT}::test_a_forked_child_has_none_of_its_parents_candidates[sqlite]",),
    ),
    Mutant(
        "a candidate with True is taken for the one with 1",
        "coord.election.unique_service:_Call.is_like",
        "and [*map(type, map(candidate.get, self.passed))] == self.types",
        "",
        (f"{CLAIMANT}::test_two_candidates_of_one_coordinator_never_lead_both",),
    ),
    Mutant(
        "mine ignores the clock",
        "coord.election.unique_service:_answer",
        "and term.held",
        "",
        (f"{CLAIMANT}::test_a_process_that_stops_after_the_answer_does_not_lead",),
    ),
    Mutant(
        "a registry releases what another one claimed",
        "coord.election.unique_service:UniqueServices.release",
        "(owner is None or member.owner is owner)",
        "owner is owner",
        (
            "services/test_unique_service.py::"
            "test_unregister_gives_back_only_what_this_registry_holds",
        ),
    ),
    Mutant(
        "a claimant whose term is over raises instead of saying so",
        "coord.election.claimant:Claimant._claim",
        "if over is None:",
        "if True:",
        (f"{CLAIMANT}::test_an_exception_leaves_the_term_as_it_was",),
    ),
    Mutant(
        "the deadline of a claimant counts from the answer",
        "coord.election.claimant:Claimant._send",
        "election.reply(action, result, began, now)",
        "election.reply(action, result, now, now)",
        (f"{CLAIMANT}::test_a_deadline_counts_from_the_sending",),
    ),
    Mutant(
        "all candidates with an id are one",
        "coord.election.unique_service:_identity",
        'return type(fields["id"]).__name__, fields["id"]',
        'return "id"',
        (f"{CLAIMANT}::test_two_candidates_of_one_coordinator_never_lead_both",),
    ),
    Mutant(
        "a stale observation is not followed by a second look",
        "coord.election.claimant:Claimant._claim",
        "if fresh and not election.claims_now(self._session.now()):",
        "if True:",
        (f"{CLAIMANT}::test_a_stale_observation_is_followed_by_a_second_look",),
    ),
    Mutant(
        "a candidate of unique_service does not step down",
        "coord.election.claimant:Claimant._obey_requests",
        "if not isinstance(decision, Handover):",
        "if True:",
        (f"{CLAIMANT}::test_it_steps_down_in_its_next_call",),
    ),
    Mutant(
        "an observation of days ago is believed",
        "coord.election.observations:_read",
        "now - MAX_AGE <= since",
        "since",
        (OBSERVATIONS,),
    ),
    Mutant(
        "the offset of a time namespace is forgotten in the file",
        "coord.election.observations:_write",
        "- kernel.awake_offset",
        "",
        (OBSERVATIONS,),
    ),
    Mutant(
        "a later time counts for the same revision",
        "coord.election.observations:_earlier",
        "other.since < observation.since",
        "False",
        (OBSERVATIONS,),
    ),
    Mutant(
        "a refused claim is the first result although the lease was observed to expire",
        "coord.election.elector:Elector._is_first_result",
        "not self.election.claims_now(now)",
        "True",
        (f"{OBSERVATIONS}::test_one_call_takes_over_what_was_observed_to_expire",),
    ),
]
