"""Benchmarks: `python -m tests.benchmarks` runs all and writes docs/benchmarks.md; each can be run
alone."""
