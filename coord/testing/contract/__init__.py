"""The tests that every store must pass, whether it is part of coord or not."""

from __future__ import annotations

from coord.testing.contract.claims import ClaimContract
from coord.testing.contract.history import HistoryContract
from coord.testing.contract.sharing import SharingContract
from coord.testing.contract.terms import TermContract
from coord.testing.contract.watch import WatchContract


class StoreContract(ClaimContract, TermContract, HistoryContract, SharingContract, WatchContract):
    """Tests of everything that `coord.stores.protocol` and rules 1 to 4 promise.

    Run them with pytest:

        class TestMyStore(StoreContract):
            def make_store(self):
                return MyStore("mystore://localhost/test")

    The tests call `make_store` inside a running loop, some of them several times. Each call returns
    another store on the same data, as another process would have it. A store in memory returns
    itself again. Every test uses new roles, so you may keep the data between tests. Override
    `fresh_role` if roles need a prefix, and `slack` (seconds) if the store is slow.
    """


__all__ = ["StoreContract"]
