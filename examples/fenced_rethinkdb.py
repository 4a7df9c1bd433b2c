"""RethinkDB refuses the write of a paused old leader: one query checks its token and writes.

Run it: python examples/fenced_rethinkdb.py rethinkdb://localhost:28015/coord
Run `coord init` for that database first. It needs POSIX. fenced_writes.py does the same on SQLite.
"""

import os
import signal
import subprocess
import sys
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from rethinkdb import RethinkDB

import coord
from coord.fencing import rethinkdb_verify, rethinkdb_write

r = RethinkDB()


def connect(url: str) -> Any:
    place = urlsplit(url)
    return closing(r.connect(place.hostname, place.port or 28015, place.path.strip("/")))


def worker(url: str, name: str) -> None:
    c = coord.connect(url)
    with c, c.leadership("fenced-writer", ttl=1) as lead, connect(url) as connection:
        lead.wait()
        term = lead.term
        print(f"{name} leads", flush=True)
        if name == "first":
            os.kill(os.getpid(), signal.SIGSTOP)  # a long pause, after it has seen that it leads
        query = rethinkdb_write(r.table("fenced_reports"), "daily", {"written_by": name}, term)
        try:
            rethinkdb_verify(query.run(connection), term)
            print(f"{name} has written", flush=True)
        except coord.StaleToken:
            print(f"{name} is refused", flush=True)


def main(url: str) -> None:
    with connect(url) as connection:
        if "fenced_reports" not in r.table_list().run(connection):
            r.table_create("fenced_reports").run(connection)
        first = subprocess.Popen([sys.executable, __file__, url, "first"])
        os.waitpid(first.pid, os.WUNTRACED)  # until it has stopped itself
        subprocess.run([sys.executable, __file__, url, "second"], check=True)
        first.send_signal(signal.SIGCONT)
        first.wait()
        report = r.table("fenced_reports").get("daily").run(connection)
        print("the report was written by", report["written_by"])


if __name__ == "__main__":
    worker(*sys.argv[1:3]) if len(sys.argv) > 2 else main(sys.argv[1])
