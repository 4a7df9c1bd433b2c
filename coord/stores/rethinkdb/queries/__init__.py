"""The ReQL queries of the RethinkDB store, and what their results mean."""
