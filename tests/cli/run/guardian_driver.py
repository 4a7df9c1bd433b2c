"""A runner without a store: moves a guardian by hand. Lines in, JSON lines out.

guardian_driver.py GRACE COMMAND …; then on stdin: start SECONDS | extend SECONDS | end SECONDS |
signal N | force (all seconds from now). End of file on stdin is the runner's end."""

import json
import os
import select
import sys

from coord.cli.run.guardian_client import GuardianClient
from coord.runtime.clock import total_seconds


def main() -> None:
    guarded = GuardianClient(sys.argv[2:], float(sys.argv[1]))
    told_child, told_stops = False, 0
    tell(guardian=guarded.guardian)
    buffer = b""
    while guarded.finished is None and not guarded.gone:
        ready, _, _ = select.select([0, guarded.fileno()], [], [])
        if guarded.fileno() in ready:
            guarded.read_reports()
            if guarded.child is not None and not told_child:
                told_child = True
                tell(child=guarded.child)
            if guarded.stopped:
                guarded.stopped = False
                told_stops += 1
                tell(stopped=told_stops)
        if 0 in ready:
            more = os.read(0, 4096)
            if not more:
                os._exit(0)
            buffer += more
            while b"\n" in buffer:
                line, _, buffer = buffer.partition(b"\n")
                obey(guarded, *line.decode().split())
    if guarded.finished is None:
        tell(gone=True, clean=guarded.force())
    else:
        tell(cause=guarded.finished.cause.name, status=guarded.finished.status)
    guarded.wait()


def obey(guarded: GuardianClient, order: str, value: str = "0") -> None:
    if order == "start":
        guarded.start({"COORD_TOKEN": "7"}, total_seconds() + float(value))
    elif order == "extend":
        guarded.extend(total_seconds() + float(value))
    elif order == "end":
        guarded.end(total_seconds() + float(value))
    elif order == "signal":
        guarded.pass_on(int(value))
    elif order == "force":
        guarded.force()


def tell(**what: object) -> None:
    print(json.dumps(what), flush=True)


main()
