"""The tests that every store must pass, whether it is part of coord or not."""

from __future__ import annotations

from coord.testing.contract.abilities import BulkContract, ImmediateContract
from coord.testing.contract.announcements import AnnouncementContract
from coord.testing.contract.claims import ClaimContract
from coord.testing.contract.faults import ContractServer, ServerContract
from coord.testing.contract.history import HistoryContract
from coord.testing.contract.kept import KeptContract
from coord.testing.contract.overrides import OverrideContract
from coord.testing.contract.promises import PromiseContract
from coord.testing.contract.records import RecordContract
from coord.testing.contract.retirement import RetirementContract
from coord.testing.contract.sharing import SharingContract
from coord.testing.contract.terms import TermContract
from coord.testing.contract.watch import WatchContract


class StoreContract(
    ClaimContract,
    TermContract,
    HistoryContract,
    KeptContract,
    SharingContract,
    WatchContract,
    PromiseContract,
    BulkContract,
    ImmediateContract,
    OverrideContract,
    RetirementContract,
    AnnouncementContract,
    RecordContract,
):
    """Tests of what `coord.stores.protocol.Store` and rules 1 to 4 promise, and of the abilities
    that the store has: `Bulk`, `Immediate`, `Overridable`, `Retirable`, `HasKept`, announcements
    and service records.

    For a store whose `max_clock_skew` is None, no test expects that a lease expires by the store's
    clock.

    Run them with pytest:

        class TestMyStore(StoreContract):
            def make_store(self):
                return MyStore("mystore://localhost/test")

    The tests call `make_store` inside a running loop, some of them several times. Each call returns
    another store on the same data, as another process would have it. A store in memory returns
    itself again. Every test uses new roles, so you may keep the data between tests. Override
    `fresh_role` if roles need a prefix, and `slack` (seconds) if the store is slow. If the store
    talks to a server, run `ServerContract`, too.
    """


__all__ = ["ContractServer", "ServerContract", "StoreContract"]
