"""How to test a job that runs only on the leader: it wins and loses on demand, with no server and
no sleep.

Run it with `pytest examples/testing_a_singleton_job.py` (pip install coord pytest). The fixture
`coord_election` comes with coord; docs/testing-your-job.md tells the rest."""

import pytest

import coord
from coord.testing import Fault

sent: list[str] = []


@coord.leader_only("invoices")
def send_invoices(customers):
    """The job under test: one process of many sends the invoices, and stops when it is no longer
    the one."""
    for customer in customers:
        coord.current_term().check()
        sent.append(customer)
    return len(sent)


@pytest.fixture(autouse=True)
def nothing_sent_yet():
    sent.clear()


@pytest.mark.usefixtures("coord_election")
def test_it_runs_where_we_lead():
    assert send_invoices(["ada", "grace"]) == 2


def test_it_is_skipped_where_somebody_else_leads(coord_election):
    coord_election.occupy("invoices")
    assert send_invoices(["ada"]) is None
    coord_election.win("invoices")  # they give way
    assert send_invoices(["ada"]) == 1


def test_it_stops_in_the_middle_when_the_lease_is_lost(coord_election):
    def customers():
        yield "ada"
        coord_election.lose("invoices", coord.LossReason.STORE_UNREACHABLE)
        yield "grace"

    with pytest.raises(coord.LeadershipLost, match="store_unreachable"):
        send_invoices(customers())
    assert sent == ["ada"]


def test_it_outlives_a_store_that_fails_for_a_moment(coord_election):
    send_invoices([])
    coord_election.store.fail("renew", Fault.UNKNOWN_DONE)
    coord_election.advance(60)  # twice the ttl, on the clock of the test
    assert send_invoices(["ada"]) == 1
