"""A paused old leader is refused: what leases cannot prevent, a fencing token does.

A worker becomes leader, checks that it leads, and is frozen (SIGSTOP) before it writes. Its lease
runs out, another worker takes over and writes. The first one thaws and writes too: without a token
it would overwrite the newer value; with one it is refused.

Run it: python examples/fenced_writes.py            (SQLite in a temporary directory; needs POSIX)
"""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile

import coord
from coord.fencing import sql_write


def worker(directory: str, name: str) -> None:
    url = f"sqlite://{directory}/coord.db"
    with coord.connect(url) as c, c.leadership("writer", ttl=1) as lead:
        lead.wait()
        term = lead.term
        term.check()
        print(f"{name} leads, token {term.token}", flush=True)
        if name == "first":
            os.kill(os.getpid(), signal.SIGSTOP)  # a long pause, between the check and the write
        database = sqlite3.connect(f"{directory}/data.db")
        try:
            with database:
                sql_write(database, "report", {"id": 1}, {"written_by": name}, term)
            print(f"{name} has written", flush=True)
        except coord.StaleToken as err:
            print(f"{name} is refused: {err}", flush=True)
        finally:
            database.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        database = sqlite3.connect(f"{directory}/data.db")
        with database:
            columns = "id INTEGER PRIMARY KEY, written_by TEXT, fencing_token INTEGER"
            database.execute(f"CREATE TABLE report ({columns})")
            database.execute("INSERT INTO report VALUES (1, 'nobody', NULL)")
        first = subprocess.Popen([sys.executable, __file__, directory, "first"])
        os.waitpid(first.pid, os.WUNTRACED)  # until it has stopped itself
        subprocess.run([sys.executable, __file__, directory, "second"], check=True)
        first.send_signal(signal.SIGCONT)
        first.wait()
        (name,) = database.execute("SELECT written_by FROM report").fetchone()
        print("the report was written by", name)
        database.close()


if __name__ == "__main__":
    worker(*sys.argv[1:]) if len(sys.argv) > 1 else main()
