"""Mutants of coord.stores."""

from __future__ import annotations

from tests.verification.mutation.mutant import Mutant

BATCHING = "stores/test_batching.py"
BULK = "stores/sqlite/test_bulk.py"
CONTRACT = "stores/test_contract.py"
FEEDS = "stores/test_feeds.py"
IDENTITY = "stores/sqlite/test_identity.py"
LEASE_CLOCK = "stores/sqlite/test_lease_clock.py"
PUBLISHING = "services/test_publishing.py"
REGISTRY = "services/test_registry.py"
REQUESTS = "stores/test_requests.py"
RETHINKDB_URL = "stores/rethinkdb/test_url.py"
SWAPS = "stores/sqlite/test_swaps.py"
URLS = "stores/test_urls.py"

MUTANTS = [
    Mutant(
        "a # in the path of a SQLite file is read as it is",
        "coord.stores.sqlite.url:parse_url",
        'if "#" in path:',
        "if False:",
        (URLS, "stores/sqlite/test_connection.py"),
    ),
    Mutant(
        "a path with special characters is written into a URL as it is",
        "coord.stores.sqlite.url:url_of",
        "path = quote(path)",
        "pass",
        (f"{URLS}::test_special_characters_in_the_path_of_a_sqlite_file",),
    ),
    Mutant(
        "an unknown URL is shown with its password",
        "coord.stores.urls:_not_a_url",
        'set(url) & set("@:")',
        "False",
        (f"{URLS}::test_an_unknown_url_is_refused_without_its_password",),
    ),
    Mutant(
        "a new listener of a watched role gets no first row",
        "coord.stores.feeds:SharedFeed._follow",
        "self._watched = self._watched - {role}",
        "pass",
        (f"{FEEDS}::test_roles_share_a_feed_and_a_new_role_opens_one_for_all",),
    ),
    Mutant(
        "a feed of a role that nobody wants goes on",
        "coord.stores.feeds:SharedFeed._remove",
        "group.pop(role, None)",
        "pass",
        (f"{FEEDS}::test_roles_share_a_feed_and_a_new_role_opens_one_for_all",),
    ),
    Mutant(
        "all candidates of a process hear of a vacant role at once",
        "coord.stores.feeds:SharedFeed._begin_turn",
        "                return\n",
        "                pass\n",
        (f"{FEEDS}::test_one_candidate_hears_of_a_vacant_role_and_the_others_of_its_leader",),
    ),
    Mutant(
        "the other candidates never hear of a vacant role",
        "coord.stores.feeds:SharedFeed._turn_over",
        "candidate not in turn.heard",
        "False",
        (f"{FEEDS}::test_the_others_hear_of_a_role_that_stays_vacant",),
    ),
    Mutant(
        "a role that changes hands often keeps candidates waiting for ever",
        "coord.stores.feeds:SharedFeed._postpone",
        "min(loop.time() + seconds, turn.until)",
        "loop.time() + seconds",
        (f"{FEEDS}::test_the_others_hear_although_rows_come_without_a_pause",),
    ),
    Mutant(
        "a candidate for which a role is reserved waits for its turn",
        "coord.stores.feeds:SharedFeed._notify",
        "turn is not None and lease.led",
        "turn is not None",
        (f"{FEEDS}::test_all_candidates_hear_at_once_of_a_row_that_may_name_them",),
    ),
    Mutant(
        "batches do not shrink while the store is slow",
        "coord.stores.batching:SwapBatcher._adapt_size",
        "seconds > timeout / 4",
        "seconds > timeout * 4",
        (f"{BATCHING}::test_batches_grow_while_the_store_is_quick_and_shrink_when_it_is_not",),
    ),
    Mutant(
        "a batch of renewals contains a role twice",
        "coord.stores.batching:RenewalBatcher._send_some",
        "if not queued.future.done()",
        "if queued.future",
        ("stores/test_batching_in_turn.py::test_what_nobody_waits_for_is_not_sent",),
    ),
    Mutant(
        "one refused row stops the reads of a batch",
        "coord.stores.requests:_read",
        "if type(err) is StoreRefused and len(reads) > 1:",
        "if False:",
        (
            f"{BULK}::test_info_that_is_no_object_stops_nobody",
            f"{BULK}::test_a_damaged_row_stops_no_other_that_travels_with_it",
        ),
    ),
    Mutant(
        "answers of a batch are in the order of the store",
        "coord.stores.requests:send_all",
        "next_read if isinstance(operation, Read) else next_swap",
        "next_swap if isinstance(operation, Read) else next_read",
        (f"{BATCHING}::test_swaps_and_looks_are_told_apart_and_answered_in_order",),
    ),
    Mutant(
        "memory: a lease does not expire",
        "coord.stores.memory.store:MemoryStore._row",
        "runs_out - self._now()",
        "lease.remaining",
        (f"{CONTRACT}::TestMemory::test_remaining_falls_with_time",),
    ),
    Mutant(
        "memory: feeds show other roles",
        "coord.stores.memory.store:MemoryStore.watch",
        "lambda lease: watched is None or lease.role in watched",
        "lambda lease: bool(lease.role)",
        (f"{CONTRACT}::TestMemory::test_only_the_roles_asked_for",),
    ),
    Mutant(
        "memory: a child keeps the rows of its parent",
        "coord.stores.memory.store:MemoryStore.abandon",
        "self._rows, self._past, self._kept, self._feeds = {}, {}, {}, Feeds()",
        "self._past, self._feeds = {}, Feeds()",
        ("stores/test_memory.py",),
    ),
    Mutant(
        "memory: an older term replaces the publication of a newer one",
        "coord.stores.memory.records:MemoryRecords.publish",
        '> record["token"]',
        '> 1e9 + record["token"]',
        (
            f"{PUBLISHING}::test_a_publication_of_an_older_term_replaces_none_of_a_newer_one[memory]",
        ),
    ),
    Mutant(
        "memory: publishing leaders is a stub that raises",
        "coord.stores.memory.records:MemoryRecords.publish",
        "with self._lock:",
        "raise RuntimeError\n        with self._lock:",
        (f"{PUBLISHING}::test_a_leader_is_published_as_a_service[memory]",),
    ),
    Mutant(
        "SQLite: publishing leaders is a stub that raises",
        "coord.stores.sqlite.records:SQLiteRecords.publish",
        "return await self._write(work, timeout)",
        "raise RuntimeError",
        (f"{PUBLISHING}::test_a_leader_is_published_as_a_service[sqlite]",),
    ),
    Mutant(
        "SQLite: withdrawing a publication is a stub that raises",
        "coord.stores.sqlite.records:SQLiteRecords.withdraw",
        "return await self._write(work, timeout, create=False)",
        "raise RuntimeError",
        (f"{PUBLISHING}::test_publications_are_withdrawn_when_the_registry_is_closed[sqlite]",),
    ),
    Mutant(
        "SQLite: the record of an older client is overwritten",
        "coord.stores.sqlite.records:SQLiteRecords.publish",
        "if not published and list(",
        "if published and list(",
        (f"{PUBLISHING}::test_a_record_in_the_place_is_left_there_and_the_log_says_so[sqlite]",),
    ),
    Mutant(
        "SQLite: a silent service is healthy",
        "coord.stores.sqlite.records",
        "END) < ttl",
        "END) < ttl + 1e9",
        (f"{REGISTRY}::test_who_is_silent_for_a_ttl_is_down[sqlite]",),
    ),
    Mutant(
        "SQLite: a removed service may be registered by a late request",
        "coord.stores.sqlite.records:SQLiteRecords.register",
        "row.get(records.TOMBSTONE) == nonce",
        "row.get(records.TOMBSTONE) == 0",
        ("services/test_hazards.py::test_7_no_late_duplicate_revives_a_service[sqlite]",),
    ),
    Mutant(
        "a file that is removed is not noticed as long as its directory is the same",
        "coord.stores.sqlite.identity:Directory.is_unchanged",
        "(now.st_ctime_ns, now.st_ino, now.st_dev) == self._known",
        "(now.st_ino, now.st_dev) == self._known[1:]",
        (f"{IDENTITY}::test_the_directory_tells_that_a_file_is_gone",),
    ),
    Mutant(
        "a second change of a directory in one tick of the clock is missed",
        "coord.stores.sqlite.identity:Directory.look",
        "or coarse - changed < _TIME_UNIT",
        "",
        (f"{IDENTITY}::test_a_second_change_in_one_tick_of_the_clock_is_not_missed",),
    ),
    Mutant(
        "SQLite: many swaps keep the lock until all are done",
        "coord.stores.sqlite.swaps:swap_all",
        "if results and time.monotonic() >= deadline:",
        "if False:",
        (f"{BULK}::test_many_swaps_that_take_long_let_others_renew",),
    ),
    Mutant(
        "SQLite: a damaged row stops the others of its batch",
        "coord.stores.sqlite.swaps:swap_all",
        "except StoreRefused as err:",
        "except KeyError as err:",
        (f"{BULK}::test_a_damaged_row_stops_no_other_that_travels_with_it",),
    ),
    Mutant(
        "SQLite: a renewal without reading ignores the token",
        "coord.stores.sqlite.swaps",
        "WHERE role = new.column1 AND holder = new.column2 AND token = new.column3",
        "WHERE role = new.column1 AND holder = new.column2",
        (f"{SWAPS}::test_one_wrong_field_is_enough_to_refuse_a_renewal",),
    ),
    Mutant(
        "SQLite: an error in a commit is a claim that was not done",
        "coord.stores.sqlite.store:_failure",
        "isinstance(err, CommitUnknown) or (",
        "False or (",
        ("stores/sqlite/test_errors.py::test_an_error_out_of_commit",),
    ),
    Mutant(
        "SQLite: a claim is not synced",
        "coord.stores.sqlite.swaps:swap",
        "synced=_must_be_synced(operation),",
        "synced=False,",
        ("stores/sqlite/test_durability.py::test_a_power_cut_takes_no_token",),
        needs=("cc",),
    ),
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
            "test_each_hears_when_it_is_sent_and_equal_timeouts_travel_together",
        ),
    ),
    Mutant(
        "a lease by an unknown clock has expired",
        "coord.stores.sqlite.lease_clock:LeaseClock.remaining",
        "        return ttl\n",
        "        return -inf\n",
        (LEASE_CLOCK,),
    ),
    Mutant(
        "another boot id proves that the machine restarted",
        "coord.stores.sqlite.lease_clock:LeaseClock.remaining",
        "and self._nobody_lives(name, lock_file)",
        "",
        (LEASE_CLOCK,),
    ),
    Mutant(
        "a process that was killed is a restart",
        "coord.stores.sqlite.lease_clock:LeaseClock.remaining",
        "lock_file and is_known(name) and is_known(own)",
        "lock_file",
        (LEASE_CLOCK,),
    ),
    Mutant(
        "a new file of locks proves a restart",
        "coord.stores.sqlite.lease_clock:LeaseClock._nobody_lives",
        "str(os.fstat(fd).st_ino) == lock_file and",
        "",
        (LEASE_CLOCK,),
    ),
    Mutant(
        "the lock is not taken",
        "coord.stores.sqlite.lease_clock:LeaseClock._open_and_lock",
        "fcntl.fcntl(self._lock_fd, fcntl.F_OFD_SETLK, lock)",
        "pass",
        (LEASE_CLOCK,),
    ),
]
