"""The suite that every store must pass, ours or a stranger's."""

from __future__ import annotations

from coord.testing.contract.claims import ClaimContract
from coord.testing.contract.history import HistoryContract
from coord.testing.contract.sharing import SharingContract
from coord.testing.contract.terms import TermContract
from coord.testing.contract.watch import WatchContract


class StoreContract(ClaimContract, TermContract, HistoryContract, SharingContract, WatchContract):
    """Every sentence of `coord.stores.protocol` and rules 1 to 4, as tests. Run it with pytest:

        class TestMyStore(StoreContract):
            def make_store(self):
                return MyStore("mystore://localhost/test")

    `make_store` is called inside a running loop, several times in some tests: each call gives
    another store on the same data, as another process would have it (for one that lives in a
    process's memory, the same store again). Roles are new in every test, so the data may be kept
    between tests. Override `fresh_role` where roles need a prefix, and `slack` (seconds) where a
    store is slow."""


__all__ = ["StoreContract"]
