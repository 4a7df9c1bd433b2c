"""A COMMAND for the tests: writes down that it runs, every few milliseconds, with the clock that
counts suspend.

worker.py JOURNAL [--ignore-term] [--grandchild] [--daemon] [--for SECONDS] [--exit STATUS]

--daemon: the grandchild is in a session of its own, and its parent has ended.
"""

import os
import signal
import sys
import time


def main() -> None:
    arguments = sys.argv[1:]
    journal = os.open(arguments[0], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    token = os.environ.get("COORD_TOKEN", "-")

    def write(name: str) -> None:
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        os.write(journal, f"{token} {os.getpid()} {now:.6f} {name}\n".encode())

    if "--ignore-term" in arguments:
        signal.signal(signal.SIGTERM, lambda *_: write("terminated"))
    name = "worker"
    if "--grandchild" in arguments and os.fork() == 0:
        name = "grandchild"
        if "--daemon" in arguments:
            os.setsid()
            if os.fork() != 0:
                os._exit(0)
    until = (
        time.monotonic() + float(arguments[arguments.index("--for") + 1])
        if "--for" in arguments
        else time.monotonic() + 60
    )  # even where what is tested fails
    while time.monotonic() < until:
        write(name)
        time.sleep(0.005)
    if "--exit" in arguments:
        sys.exit(int(arguments[arguments.index("--exit") + 1]))


main()
