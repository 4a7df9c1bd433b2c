"""Processes that begin at the same moment: forks of one Python that has imported what they need.

They race harder than programs that are started one after the other, and the imports, which take most
of the time of a short program, are done once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

PARENT = """
import io, os, sys, traceback

count, imports, work = int(sys.argv[1]), sys.argv[2], compile(sys.argv[3], "<work>", "exec")
del sys.argv[1:4]
exec(imports)
gate, opening = os.pipe()
pids = []
for number in range(count):
    pid = os.fork()
    if pid:
        pids.append(pid)
        continue
    status, sys.stdout = 1, io.StringIO()
    try:
        os.close(opening)
        os.read(gate, 1)  # until the parent has started all
        exec(work)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os.write(1, sys.stdout.getvalue().encode())  # at once, so that lines are not mixed
        os._exit(status)
os.close(opening)
sys.exit(sum(os.waitpid(pid, 0)[1] != 0 for pid in pids))
"""


def at_once(
    count: int, imports: str, work: str, *arguments: str, timeout: float = 100
) -> list[str]:
    """Run `work` in several processes at once, and return the lines that they printed.

    Each process must end well, and warn of nothing.

    Args:
        count: The number of processes.
        imports: Python code that runs once, before the processes begin.
        work: Python code of each process; `number` counts them from 0.
        arguments: `sys.argv[1:]` of each process.
        timeout: Seconds until all must have ended.
    """
    program = [sys.executable, "-W", "error", "-c", PARENT, str(count)]
    parent = subprocess.Popen(
        [*program, textwrap.dedent(imports), textwrap.dedent(work), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = parent.communicate(timeout=timeout)
    except BaseException:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()
        raise
    assert (parent.returncode, err) == (0, ""), err
    return out.splitlines()
