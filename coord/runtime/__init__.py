"""What the standard library lacks for coord: clocks, a background event loop, threads, timers,
retries."""
