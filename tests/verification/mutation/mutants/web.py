"""Mutants of coord.web and of coord.integrations.asgi."""

from __future__ import annotations

from tests.verification.mutation.mutant import Mutant

PAGES = "web/test_pages.py"
INTERFACE = "web/test_interface.py"
LIVE = "web/test_live.py"
SERVER = "web/test_server.py"
ASGI = "integrations/test_asgi.py"
SHUTDOWN = "runtime/test_shutdown.py"

MUTANTS = [
    Mutant(
        "foreign text is not escaped",
        "coord.web.pages:Pages.__init__",
        "autoescape=True",
        "autoescape=False",
        (f"{PAGES}::test_foreign_text_is_only_ever_text",),
    ),
    Mutant(
        "every host name is allowed",
        "coord.web.security:Authority.host_allowed",
        '"*" in self.hosts or',
        "bool(self.hosts) or",
        (f"{INTERFACE}::test_another_host_name_is_refused",),
    ),
    Mutant(
        "the beginning of a token is enough",
        "coord.web.security:Authority.token_is_right",
        "self._token.encode()",
        "self._token.encode()[: len(credentials.strip())]",
        (f"{INTERFACE}::test_without_a_token_nobody_can_change_anything",),
    ),
    Mutant(
        "a client behind a proxy counts as local",
        "coord.web.security:Authority.may_see_store",
        "not any(name in connection.headers for name in FORWARDED)",
        "True",
        (f"{INTERFACE}::test_the_store_is_named_on_loopback_or_with_the_token_only",),
    ),
    Mutant(
        "the URL of the store is shown to other machines",
        "coord.web.security:Authority.may_see_store",
        "client.host in LOOPBACK",
        "bool(client.host)",
        (f"{INTERFACE}::test_the_store_is_named_on_loopback_or_with_the_token_only",),
    ),
    Mutant(
        "a probe asks the first candidate only",
        "coord.web.probes:_leads",
        "any(leads)",
        "leads[0]",
        (f"{INTERFACE}::test_probes_answer_for_any_candidate_of_the_process",),
    ),
    Mutant(
        "a slash in a role divides the path",
        "coord.web.security:encode",
        'safe=""',
        'safe="/"',
        (f"{PAGES}::test_a_role_with_slashes_and_one_that_is_unknown",),
    ),
    Mutant(
        "each reader has a watcher",
        "coord.web.live:Live.join",
        "if self._task is None:",
        "if self._readers:",
        (f"{LIVE}::test_one_watcher_serves_all_readers_and_ends_with_the_last",),
    ),
    Mutant(
        "the watcher goes on without readers",
        "coord.web.live:Live.leave",
        "self._task.cancel()",
        "self._task.done()",
        (f"{LIVE}::test_one_watcher_serves_all_readers_and_ends_with_the_last",),
    ),
    Mutant(
        "histories are not read again after a change",
        "coord.web.live:Live._run",
        "histories = None\n                    pause",
        "pause",
        (f"{LIVE}::test_a_page_hears_of_each_change",),
    ),
    Mutant(
        "an open page keeps a server from ending",
        "coord.web.live:Live.close",
        "self.closing = True",
        "self.closing = False",
        (f"{LIVE}::test_close_ends_all_streams_now_and_later",),
    ),
    Mutant(
        "an address that others can reach needs no name",
        "coord.web.server:Address.is_loopback",
        "ipaddress.ip_address(self.host).is_loopback",
        "bool(ipaddress.ip_address(self.host))",
        (f"{SERVER}::test_addresses",),
    ),
    Mutant(
        "a token file that others can write is accepted",
        "coord.web.server:read_token",
        "mode & 0o022:",
        "mode & 0o002:",
        (f"{SERVER}::test_a_token_file_is_written_by_its_owner_only",),
    ),
    Mutant(
        "the signal reaches the server only",
        "coord.runtime.shutdown:_chained",
        "if active:",
        "if not active:",
        (f"{SHUTDOWN}::test_it_is_called_before_the_server",),
    ),
    Mutant(
        "a request is redirected to its own server",
        "coord.integrations.asgi:Lead.required",
        "if self._redirects and _is_base(base) and base != own:",
        "if self._redirects and _is_base(base):",
        (f"{ASGI}::test_no_redirect_to_what_is_no_address_of_another",),
    ),
    Mutant(
        "a job that raises is not run again",
        "coord.integrations.asgi:Lead._repeat",
        'log.error("asgi.job_failed", err, role=self.role, token=term.token, job=name)',
        "return",
        (f"{ASGI}::test_periodic_jobs_run_on_the_leader_under_its_term",),
    ),
    Mutant(
        "the role is kept until the server has ended",
        "coord.integrations.asgi:Lead._started_candidate",
        "loop.call_soon_threadsafe(leadership.stop_soon)",
        "loop.call_soon_threadsafe(lambda: None)",
        (f"{ASGI}::test_the_role_is_given_back_while_a_request_goes_on[slow-15]",),
    ),
]
