"""A newer token shuts older ones out: a callable, a SQL row, a RethinkDB document."""

from __future__ import annotations

import sqlite3
import threading
from typing import Any

import pytest

import coord
from coord import Coordinator, Fence, StaleToken
from coord.fencing import rethinkdb_verify, rethinkdb_write, sql_write, token_of


def test_any_callable() -> None:
    fence, done = Fence("the ledger"), []
    fence(done.append, "a", term=1)
    fence(done.append, "b", term=3)
    fence(done.append, "c", term=3)
    with pytest.raises(StaleToken, match="the ledger refuses token 2: it has already seen token 3"):
        fence(done.append, "d", term=2)
    assert done == ["a", "b", "c"]


@pytest.mark.parametrize(("running", "arriving"), [(1, 2), (2, 1), (2, 2)])
def test_a_call_that_arrives_while_another_is_under_way_waits(running: int, arriving: int) -> None:
    """Without the wait, an older call could still write after a newer one has returned."""
    fence, order = Fence("the file"), []
    inside, go_on = threading.Event(), threading.Event()
    refused: list[StaleToken] = []

    def first() -> None:
        inside.set()
        assert go_on.wait(60)
        order.append("first")

    def second() -> None:
        try:
            fence(order.append, "second", term=arriving)
        except StaleToken as err:
            refused.append(err)

    calls = [threading.Thread(target=lambda: fence(first, term=running))]
    calls[0].start()
    assert inside.wait(60)
    calls.append(threading.Thread(target=second))
    calls[1].start()
    calls[1].join(0.2)  # long enough for a call that does not wait
    meanwhile = (list(order), list(refused), fence.newest)
    go_on.set()
    for call in calls:
        call.join(60)
    assert meanwhile == ([], [], running)
    assert order == (["first", "second"] if arriving >= running else ["first"])
    assert fence.newest == max(running, arriving)
    assert [(err.token, err.newest) for err in refused] == ([(1, 2)] if arriving < running else [])


def test_a_call_inside_of_a_guarded_one_does_not_wait_for_itself() -> None:
    fence: Fence = Fence()
    assert fence(lambda: fence(lambda: fence.newest, term=3), term=2) == 3


@pytest.mark.parametrize("bad", [0.5, -1, True, "1", 2**53 + 1])
def test_what_a_fence_begins_with_is_checked(bad: Any) -> None:
    with pytest.raises(coord.BadArgument, match=r"^invalid newest .*: must be "):
        Fence("x", newest=bad)


INJECTIONS = ["a b", "a; DROP TABLE t", "a = 1 OR 1", "", "1a", "a-b", '"a"', "é", "a\n", None, 7]


@pytest.mark.parametrize("where", ["table", "key", "changes", "field"])
@pytest.mark.parametrize("bad", INJECTIONS)
def test_names_in_a_sql_write_are_checked(where: str, bad: Any) -> None:
    class NoDatabase:
        def cursor(self) -> None:
            raise AssertionError("the statement was sent")

    arguments: dict[str, Any] = {
        "table": "t",
        "key": {"id": 1},
        "changes": {"n": 2},
        "field": "token",
    }
    arguments[where] = {bad: 1} if isinstance(arguments[where], dict) else bad
    with pytest.raises(coord.BadArgument, match=rf"^invalid {where} .*: must be "):
        sql_write(NoDatabase(), term=1, **arguments)


@pytest.mark.parametrize("where", ["key", "changes"])
def test_a_sql_write_names_columns(where: str) -> None:
    arguments: dict[str, Any] = {"key": {"id": 1}, "changes": {"n": 2}, where: {}}
    with pytest.raises(coord.BadArgument, match=rf"^invalid {where} {{}}: must "):
        sql_write(None, "t", term=1, **arguments)


def test_a_sql_row() -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE accounts (id TEXT, kind TEXT, balance INT, fencing_token INT)")
    db.execute("INSERT INTO accounts VALUES ('x', 'k', 0, NULL)")
    key = {"id": "x", "kind": "k"}
    sql_write(db, "accounts", key, {"balance": 10}, 5)
    sql_write(db, "accounts", key, {"balance": 20}, 5)
    with pytest.raises(StaleToken, match="refuses token 4: it has already seen token 5"):
        sql_write(db, "accounts", key, {"balance": 30}, 4)
    sql_write(db, "accounts", key, {"balance": 40}, 6)
    assert db.execute("SELECT balance, fencing_token FROM accounts").fetchall() == [(40, 6)]
    with pytest.raises(coord.CoordError, match="no row"):
        sql_write(db, "accounts", {"id": "y"}, {"balance": 1}, 7)
    with pytest.raises(coord.BadArgument, match="changes"):
        sql_write(db, "accounts", key, {"balance = 0; --": 1}, 7)
    db.close()


@pytest.mark.parametrize("bad", [0, -1, True, 2**53 + 1, "3", 1.5])
def test_what_is_no_token(bad: Any) -> None:
    with pytest.raises(coord.BadArgument, match="term"):
        token_of(bad)


def test_the_current_term_is_the_default() -> None:
    with pytest.raises(coord.NotLeader):
        token_of(None)
    c = Coordinator("memory://")
    assert c.leadership("r", ttl=2).run(token_of, None) == 1
    c.close()


def test_a_rethinkdb_document(rethinkdb_server: Any) -> None:
    from rethinkdb import RethinkDB

    r = RethinkDB()
    connection = r.connect(host=rethinkdb_server.host, port=rethinkdb_server.port)
    name = "fencing_test"
    if name not in r.db_list().run(connection):
        r.db_create(name).run(connection)
        r.db(name).table_create("docs").run(connection)
    table = r.db(name).table("docs")
    table.wait().run(connection)

    def write(changes: dict[str, Any], token: int) -> None:
        rethinkdb_verify(rethinkdb_write(table, "k", changes, token).run(connection), token)

    write({"n": 1}, 5)
    write({"n": 2, "m": 1}, 5)
    with pytest.raises(StaleToken, match="refuses token 4: it has already seen token 5"):
        write({"n": 3}, 4)
    assert table.get("k").run(connection) == {"id": "k", "n": 2, "m": 1, "fencing_token": 5}
    write({"n": 4}, 9)
    table.insert({"id": "old", "n": 0}).run(connection)
    rethinkdb_verify(
        rethinkdb_write(table, "old", {"n": 1}, 1).run(connection), 1
    )  # a document without a token yet
    table.insert({"id": "odd", "fencing_token": "x"}).run(connection)
    rethinkdb_verify(rethinkdb_write(table, "odd", {"n": 1}, 1).run(connection), 1)
    r.db_drop(name).run(connection)
    connection.close()
