"""Compositions of elections: shards that are shared fairly, and roles with several holders."""
