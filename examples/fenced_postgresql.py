"""PostgreSQL refuses the write of a paused old leader: one statement checks its token and writes.

Run it: python examples/fenced_postgresql.py postgresql://app@localhost/app
Run `coord init` for that URL first. It needs POSIX. fenced_writes.py does the same on SQLite.
"""

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import asyncpg

import coord
from coord.fencing import asyncpg_write

TABLE = "fenced_reports"
COLUMNS = "id int PRIMARY KEY, written_by text, fencing_token bigint"


async def write(url: str, name: str, term: coord.Term) -> None:
    database = await asyncpg.connect(url.partition("?")[0])
    try:
        await asyncpg_write(database, TABLE, {"id": 1}, {"written_by": name}, term)
        print(f"{name} has written", flush=True)
    except coord.StaleToken:
        print(f"{name} is refused", flush=True)
    await database.close()


def worker(url: str, name: str) -> None:
    with coord.connect(url) as c, c.leadership("fenced-writer", ttl=1) as lead:
        lead.wait()
        term = lead.term
        print(f"{name} leads", flush=True)
        if name == "first":
            os.kill(os.getpid(), signal.SIGSTOP)  # a long pause, after it has seen that it leads
        asyncio.run(write(url, name, term))


async def execute(url: str, *statements: str) -> list[Any]:
    database = await asyncpg.connect(url.partition("?")[0])
    rows = [await database.fetchrow(statement) for statement in statements]
    await database.close()
    return rows


def main(url: str) -> None:
    insert = f"INSERT INTO {TABLE} VALUES (1, 'nobody') ON CONFLICT DO NOTHING"
    asyncio.run(execute(url, f"CREATE TABLE IF NOT EXISTS {TABLE} ({COLUMNS})", insert))
    first = subprocess.Popen([sys.executable, __file__, url, "first"])
    os.waitpid(first.pid, os.WUNTRACED)  # until it has stopped itself
    subprocess.run([sys.executable, __file__, url, "second"], check=True)
    first.send_signal(signal.SIGCONT)
    first.wait()
    print("the report was written by", asyncio.run(execute(url, f"SELECT * FROM {TABLE}"))[0][1])


if __name__ == "__main__":
    worker(*sys.argv[1:3]) if len(sys.argv) > 2 else main(sys.argv[1])
