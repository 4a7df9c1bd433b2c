"""Elections on one event loop: sessions, electors, terms, callbacks and lookups."""
