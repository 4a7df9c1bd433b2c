"""Values and rules of an election: no clock, no I/O, no threads, no randomness, no logging."""
