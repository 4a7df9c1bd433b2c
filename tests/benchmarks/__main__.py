"""`python -m tests.benchmarks`: all of them, into docs/benchmarks.md. `--quick` takes fewer rounds."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.benchmarks import growth, handover, lookups, peers, report, roles, startup, swaps
from tests.benchmarks.report import Row
from tests.servers import rethinkdb_server

Sections = dict[str, list[Row]]


def on_sqlite(directory: Path, quick: bool) -> Sections:
    url = f"sqlite://{directory}/roles.db"
    late = handover.failover(f"sqlite://{directory}/failover.db", 2, 3 if quick else 7)
    return {
        "SQLite: one swap": swaps.sqlite_rows(directory, 200 if quick else 1000),
        "SQLite: many roles": roles.measure(
            url, 1000, 15, 15 if quick else 150, swaps.raw_sqlite_rate(directory, 1000)
        ),
        "SQLite: handover and failover": [
            *handover.rows(f"sqlite://{directory}/handover.db", 10, 20 if quick else 100),
            failover_row("failover after kill -9, one waiting, beyond the ttl", late, 100),
        ],
    }


def failover_row(what: str, late: list[float], bound: float) -> Row:
    median = statistics.median(late)
    return Row(f"{what}, median of {len(late)}", median, "ms", bound=f"≤ {bound:g} ms", met=median <= bound)


def on_rethinkdb(quick: bool) -> Sections:
    from coord.stores.rethinkdb.setup import set_up

    with rethinkdb_server.Server() as server:
        url = server.url("bench")
        asyncio.run(set_up(url))
        peer = peers.kazoo_handover(20 if quick else 100)
        count = 1_000 if quick else 10_000
        raw = swaps.raw_batch_rate(url, server.host, server.port, count)
        few, crowd = handover.failover(url, 2, 3 if quick else 7), handover.failover(url, 2, 3 if quick else 5, 200)
        return {
            "RethinkDB: one swap": swaps.rethinkdb_rows(url, server.host, server.port, 200 if quick else 1000),
            "RethinkDB: many roles": roles.measure(url, count, 15, 15 if quick else 150, raw),
            "RethinkDB: handover and failover": [
                *handover.rows(url, 3, 20 if quick else 100, peer),
                failover_row("failover after kill -9, one waiting, beyond the ttl", few, 100),
                failover_row("failover after kill -9, 200 waiting, beyond the ttl", crowd, 300),
                *growth.herd(url, 2, 200),
                *growth.standbys(url, 3, 1000),
            ],
        }


@click.command()
@click.option("--quick", is_flag=True, help="Fewer rounds: to see that it runs, not to publish.")
def main(quick: bool) -> None:
    began = time.monotonic()
    sections: Sections = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        sections |= {"Start-up and memory reads": [*startup.rows(directory), *lookups.rows(directory)]}
        sections |= on_sqlite(directory, quick)
        if rethinkdb_server.available():
            sections |= on_rethinkdb(quick)
    report.write(sections, time.monotonic() - began)
    click.echo(report.PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
