"""Where the programs and commands of the documents run: in forks of a process that has imported
coord."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from tests.support.forkserver import ForkServer

ELECTIONS = (
    "coord",
    "asyncio",
    "coord.api.sync_coordinator",
    "coord.election.unique_service",
    "coord.stores.memory.store",
    "coord.stores.sqlite.store",
    "coord.stores.sqlite.admin",
)
"""What `import coord` imports later: when a program connects."""
COORD = """\
#!/bin/sh
case $1 in {words}) exec {python} -m coord "$@" ;; esac
exec {forked} "$@"
"""


def start_forks(*modules: str, warnings: str = "default") -> ForkServer:
    """Start a server that has imported coord and these modules. A program that forgets to import
    one of them still fails, because no name is bound in it.

    Args:
        modules: What it imports besides coord.
        warnings: An option of `python -W`.
    """
    return ForkServer(*ELECTIONS, *modules, options=("-W", warnings), finalizes=False)


def write_coord(forks: ForkServer, directory: Path, *started: str) -> None:
    """Write a program `coord` into a directory, that runs the command line in a fork.

    Args:
        forks: Where it runs.
        directory: An existing directory.
        started: The commands that start a Python of their own, as for a user. A signal to one of
            the others kills it.
    """
    forked = shlex.join(forks.client("-m", "coord"))
    file = directory / "coord"
    file.write_text(COORD.format(words="|".join(started), python=sys.executable, forked=forked))
    file.chmod(0o755)
