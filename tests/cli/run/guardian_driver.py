"""A runner without a store: moves a guardian by hand. Lines in, JSON lines out.

guardian_driver.py GRACE COMMAND …; then on stdin: start SECONDS | extend SECONDS | end SECONDS |
signal N | force (all seconds from now). End of file on stdin is the runner's end.

With IMMUNE=WORD in the environment, a process whose command line contains WORD gets no signal, like
one of another user. With DEFECT=METHOD, that method of the guardian raises once COMMAND runs."""

import json
import os
import select
import sys
import time

from coord.cli.run.guardian import Guardian
from coord.cli.run.guardian_client import GuardianClient
from coord.runtime.clock import total_seconds
from tests.support.signals import make_immune


def break_guardian(method: str) -> None:
    def fails(*_: object) -> None:
        time.sleep(0.3)  # COMMAND has started its descendants.
        raise RuntimeError("broken for the test")

    setattr(Guardian, method, fails)


def main() -> None:
    if "IMMUNE" in os.environ:
        make_immune(os.environ["IMMUNE"])
    if "DEFECT" in os.environ:
        break_guardian(os.environ["DEFECT"])
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
            if guarded.not_permitted:
                tell(not_permitted=guarded.not_permitted)
                guarded.not_permitted = []
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
        tell(gone=True, survivors=guarded.force())
    else:
        finished = guarded.finished
        more = {"survivors": finished.survivors} if finished.survivors else {}
        tell(cause=finished.cause.name, status=finished.status, **more)
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
