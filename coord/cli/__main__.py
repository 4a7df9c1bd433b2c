"""`python -m coord.cli` is `coord`."""

from coord.cli import main

main()
