"""Benchmarks: ratios in one run. `python -m tests.benchmarks` runs them and writes docs/benchmarks.md and its plot."""
