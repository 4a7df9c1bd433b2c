"""How to test a job that runs only on the leader: it wins and loses the role on demand, without a
server and without sleeping.

Run it with `pytest examples/testing_a_singleton_job.py` (pip install coord pytest). The fixture
`coord_election` comes with coord. docs/testing-your-job.md describes it.
"""

from collections.abc import Iterable, Iterator

import pytest

import coord
from coord.testing import ElectionKit, Fault

sent: list[str] = []


@coord.leader_only("invoices")
def send_invoices(customers: Iterable[str]) -> int:
    """The job under test: one of many processes sends the invoices, and stops after a loss."""
    for customer in customers:
        coord.require_term().check()
        sent.append(customer)
    return len(sent)


@pytest.fixture(autouse=True)
def nothing_sent() -> None:
    sent.clear()


@pytest.mark.usefixtures("coord_election")
def test_it_runs_on_the_leader() -> None:
    assert send_invoices(["ada", "grace"]) == 2


def test_it_is_skipped_if_another_candidate_leads(coord_election: ElectionKit) -> None:
    coord_election.occupy("invoices")
    assert send_invoices(["ada"]) is None
    coord_election.win("invoices")
    assert send_invoices(["ada"]) == 1


def test_it_stops_when_the_lease_is_lost(coord_election: ElectionKit) -> None:
    def customers() -> Iterator[str]:
        yield "ada"
        coord_election.lose("invoices", coord.LossReason.STORE_UNREACHABLE)
        yield "grace"

    with pytest.raises(coord.LeadershipLost, match="store_unreachable"):
        send_invoices(customers())
    assert sent == ["ada"]


def test_it_survives_a_short_failure_of_the_store(coord_election: ElectionKit) -> None:
    send_invoices([])
    coord_election.store.fail("renew", Fault.UNKNOWN_DONE)
    coord_election.advance(60)  # twice the ttl, on the clock of the test
    assert send_invoices(["ada"]) == 1
