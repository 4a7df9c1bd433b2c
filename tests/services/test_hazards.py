"""The ten hazards of the ancestor, each shown on doublethink itself and gone here, on a real
RethinkDB.

A test named `..._of_doublethink` does it in the way of doublethink and sees the harm; those after it do
the same by coord. The tests are in the order of the hazards: whose clock decides, several queries that change
what another one holds, who the holder is, who may depose a leader, malformed rows, failures of the store,
ghosts that are unregistered and come back, set-up by several at once, many clients, and replicas."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from coord import Coordinator, NotSetUp, ServiceRegistry, StoreUnavailable
from tests.conftest import External
from tests.services.conftest import ancestor, doublethink, set_up
from tests.support import raw_records
from tests.support.databases import new_database
from tests.support.rethinkdb_server import Server

Three = tuple[ServiceRegistry, ServiceRegistry, ServiceRegistry]


@pytest.fixture
def old(database: str) -> Any:
    return ancestor(database)


@pytest.fixture
def three(database: str) -> Iterator[Three]:
    with (
        ServiceRegistry(database) as a,
        ServiceRegistry(database) as b,
        ServiceRegistry(database) as c,
    ):
        yield a, b, c


def role() -> str:
    """A role of its own: leases, and so their roles, are never deleted."""
    return f"role {time.monotonic_ns()}"


def test_1_of_doublethink_a_fast_claimant_steals_and_a_slow_holder_is_displaced(
    old: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = doublethink()
    right = module.utcnow
    old.unique_service("fast", {"node": "holder", "ttl": 30})
    monkeypatch.setattr(module, "utcnow", lambda: right() + timedelta(seconds=31))
    assert old.unique_service("fast", {"node": "thief", "ttl": 30})["node"] == "thief"
    monkeypatch.setattr(module, "utcnow", lambda: right() - timedelta(seconds=31))
    old.unique_service("slow", {"node": "holder", "ttl": 30})
    monkeypatch.undo()
    assert old.unique_service("slow", {"node": "thief", "ttl": 30})["node"] == "thief"


@pytest.mark.parametrize("seconds", [31, -31, 86_400])
def test_1_no_wall_clock_of_a_client_matters(
    three: Three, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, thief, _ = three
    name, real = role(), time.time
    monkeypatch.setattr(time, "time", lambda: real() + seconds)
    claimed = holder.unique_service(name, {"id": "holder", "node": "holder", "ttl": 30})
    monkeypatch.setattr(time, "time", lambda: real() - seconds)
    record = thief.unique_service(name, {"id": "thief", "node": "thief", "ttl": 30})
    assert claimed is not None
    assert record is not None
    assert (record["node"], record["token"]) == ("holder", claimed["token"])
    holder.heartbeat({"id": "a", "role": name, "ttl": 30, "load": 1})
    assert thief.healthy_service(name) is not None


class Paused:
    """The ancestor's Rethinker, which stops before its n-th query."""

    def __init__(self, wrapped: Any, before: int, meanwhile: Any) -> None:
        self.wrapped, self.left, self.meanwhile = wrapped, before, meanwhile

    def table(self, *args: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            self.meanwhile()
        return self.wrapped.table(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


def test_2_of_doublethink_a_paused_holder_overwrites_and_two_lead(old: Any, database: str) -> None:
    other = ancestor(database)
    reports: list[Any] = []

    def meanwhile() -> None:
        time.sleep(0.4)
        reports.append(
            other.unique_service("sync", {"node": "b", "port": 2, "ttl": 30, "only b": 1})
        )

    old.rr = Paused(old.rr, 2, meanwhile)
    reports.append(old.unique_service("sync", {"node": "a", "port": 1, "ttl": 0.3, "only a": 1}))
    assert reports[0]["node"] == "b", "b was told that it leads"
    merged = other.rr.table("services").get("sync").run()
    assert merged["node"] == "a", "a's renewal was unconditional"
    assert "only b" in merged
    assert "only a" in merged


def test_2_a_paused_holder_changes_nothing(three: Three) -> None:
    a, b, watcher = three
    name = role()
    first = a.unique_service(name, {"id": "a", "node": "a", "ttl": 2})
    # The pause: longer than the lease and than what its own server's clock may be off by.
    second = None
    until = time.monotonic() + 60
    while not (second and second["mine"]) and time.monotonic() < until:
        second = b.unique_service(name, {"id": "b", "node": "b", "ttl": 30})
        time.sleep(0.05)
    assert first is not None
    assert second is not None
    assert second["token"] > first["token"]
    late = a.unique_service(name, {"id": "a", "node": "a", "ttl": 2})
    assert late is not None
    assert (late["node"], late["mine"], late["token"]) == ("b", False, second["token"])
    assert (watcher.unique_service(name) or {})["node"] == "b"


def test_2_every_call_is_one_query(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = three[0]
    assert registry.unique_service(role(), {"id": "a", "ttl": 30})  # connects, and checks the table
    pool = registry.inner.records._pool  # type: ignore[attr-defined]
    requests, run, begin = [], pool.query, pool.begin

    async def counted(*args: Any, **options: Any) -> Any:
        requests.append(1)
        return await run(*args, **options)

    def begun(*args: Any) -> Any:
        requests.append(1)
        sent = begin(*args)
        assert sent is not None
        return sent

    monkeypatch.setattr(pool, "query", counted)
    monkeypatch.setattr(pool, "begin", begun)
    name = role()
    for call in (
        lambda: registry.heartbeat({"id": name, "role": name, "ttl": 60, "load": 1}),
        lambda: registry.heartbeat({"id": name, "role": name, "ttl": 60, "load": 1}),
        lambda: registry.healthy_service(name),
        lambda: registry.healthy_service(name, choose="spread"),
        lambda: registry.healthy_services(name),
        lambda: registry.unregister(name),
        registry.purge_stale_services,
        lambda: registry.unique_service(name, {"id": "a", "ttl": 30}),
        lambda: registry.unique_service(name, {"id": "a", "ttl": 30}),
        lambda: registry.unique_service(name),
    ):
        requests.clear()
        call()
        assert len(requests) == 1


def test_3_of_doublethink_a_tuple_is_never_renewed_and_twins_renew_each_other(old: Any) -> None:
    first = old.unique_service("tuple", {"node": "a", "ports": (1, 2), "ttl": 30})
    time.sleep(0.01)
    assert old.unique_service("tuple", {"node": "a", "ports": (1, 2), "ttl": 30}) == first, (
        "no heartbeat"
    )
    item = old.unique_service("twins", {"host": "h", "pid": 1, "ttl": 30})
    time.sleep(0.01)
    other = old.unique_service("twins", {"host": "h", "pid": 1, "ttl": 30})
    assert other["last_heartbeat"] > item["last_heartbeat"], (
        "another container renewed it, and leads too"
    )


def test_3_a_holder_is_known_by_an_id_of_its_own(three: Three) -> None:
    a, b, c = three
    name = role()
    candidate = {"host": "h", "pid": 1, "ports": (1, 2), "ttl": 30}
    first = a.unique_service(name, candidate)
    time.sleep(0.01)
    renewed = a.unique_service(name, candidate)
    twin = b.unique_service(name, candidate)
    assert first is not None
    assert renewed is not None
    assert twin is not None
    assert renewed["last_heartbeat"] > first["last_heartbeat"]
    assert (renewed["mine"], renewed["token"], twin["mine"]) == (True, first["token"], False)
    a.close()  # a restart: its successor does not wait for a ttl
    assert (c.unique_service(name, candidate) or {})["mine"]


def test_4_of_doublethink_anybody_deposes(old: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    old.unique_service("sync", {"node": "a", "ttl": 30})
    old.unregister("sync")
    assert old.unique_service("sync", {"node": "b", "ttl": 30})["node"] == "b"
    module, right = doublethink(), doublethink().utcnow
    monkeypatch.setattr(module, "utcnow", lambda: right() - timedelta(seconds=61))
    old.unique_service("slow", {"node": "a", "ttl": 30})
    assert old.unique_service("slow")["node"] == "a", (
        "it leads, and renews in time by its own clock"
    )
    old.purge_stale_services()
    assert old.unique_service("slow") is None


def test_4_a_leader_has_a_token_and_only_it_releases(
    three: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, _ = three
    name, real = role(), time.time
    monkeypatch.setattr(time, "time", lambda: real() - 61)
    first = a.unique_service(name, {"id": "a", "node": "a", "ttl": 30})
    monkeypatch.undo()
    b.unregister(name)
    b.unregister("a")
    b.purge_stale_services(1)
    assert first is not None
    assert first["token"] >= 1
    assert (b.unique_service(name, {"id": "b", "node": "b", "ttl": 30}) or {})["token"] == first[
        "token"
    ]
    a.close()
    assert (b.unique_service(name, {"id": "b", "node": "b", "ttl": 30}) or {})["token"] == first[
        "token"
    ] + 1


def test_5_of_doublethink_a_row_without_ttl_wedges(old: Any) -> None:
    old.rr.table("services").insert({"id": "sync"}).run()
    for _ in range(3):
        assert old.unique_service("sync", {"node": "a", "ttl": 30}) is None, "nobody leads, ever"
    old.rr.table("services").insert(
        {"id": "x", "role": "worker", "ttl": "60", "last_heartbeat": "now"}
    ).run()
    old.heartbeat({"id": "good", "role": "worker", "ttl": 60, "load": 1})
    with pytest.raises(Exception, match="Expected type NUMBER but found STRING"):
        list(old.healthy_services("worker"))
    with pytest.raises(Exception, match="Expected type NUMBER but found STRING"):
        old.purge_stale_services()


def test_5_malformed_rows_wedge_nothing(three: Three, database: str) -> None:
    registry = three[0]
    name = role()
    raw_records.write(registry, name, ttl=raw_records.LEFT_OUT, age=raw_records.LEFT_OUT)
    raw_records.write(registry, "x", "worker", ttl="60", age="now")
    registry.heartbeat({"id": "good", "role": "worker", "ttl": 60, "load": 1})
    assert [record["id"] for record in registry.healthy_services("worker")] == ["good"]
    assert registry.purge_stale_services() == {"deleted": 0}
    with ServiceRegistry(database, publish=True) as publishing:
        assert (publishing.unique_service(name, {"id": "a", "ttl": 30}) or {})["mine"]
        assert ancestor(database).unique_service(name) is not None
    assert [bad.record["id"] for bad in registry.bad_records()] == ["x"]


def test_6_of_doublethink_failures_are_swallowed_or_last_forever(own_server: Server) -> None:
    module = doublethink()
    old = ancestor(own_server.url())
    rr = old.rr

    class Interrupted:
        def table(self, *_: Any) -> Any:
            raise KeyboardInterrupt

    old.rr = Interrupted()
    output = {"role": "worker", "ttl": 60, "load": 1}
    assert "last_heartbeat" not in old.heartbeat(output), (
        "Ctrl-C is swallowed, and so is the failure"
    )
    old.rr = rr
    own_server.kill()
    rr.last_error = {}

    def ended() -> Any:
        raise SystemExit  # lets the thread end after the test

    thread = threading.Thread(target=lambda: old.heartbeat(output), daemon=True)
    thread.start()
    thread.join(2)
    assert thread.is_alive(), "no deadline"
    rr._server_whitelist = ended
    assert module is not None
    thread.join(15)


def test_6_a_failed_heartbeat_raises_in_time_and_changes_nothing(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(own_server.url())
    with Coordinator(own_server.url(), timeout=1) as coordinator:
        registry = coordinator.services
        output = {"role": "worker", "ttl": 60, "load": 1, "list": [1]}
        stored = registry.heartbeat(output)

        def interrupted(*_: Any) -> Any:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(coordinator.portal, "call", interrupted)
            with pytest.raises(KeyboardInterrupt):
                registry.heartbeat(output)
        for trouble in (own_server.freeze, own_server.kill):
            trouble()
            for record in (output, stored):
                before, began = dict(record), time.monotonic()
                with pytest.raises(StoreUnavailable):
                    registry.heartbeat(record)
                assert time.monotonic() - began < 4
                assert record == before
            with pytest.raises(StoreUnavailable):
                registry.healthy_service("worker")
            with pytest.raises(StoreUnavailable):
                registry.unregister("x")


def test_7_of_doublethink_late_and_lost_answers_make_ghosts(old: Any) -> None:
    sent = old.heartbeat({"id": "a", "role": "worker", "ttl": 60, "load": 1})
    old.unregister("a")
    old.heartbeat(sent)  # the same query once more, as a network may deliver it
    assert old.healthy_service("worker")["id"] == "a", "risen from the dead"
    old.unregister("a")

    output = {"role": "worker", "ttl": 60, "load": 1}
    real = old.rr

    class Lossy:
        def table(self, *args: Any) -> Any:
            table = real.table(*args)

            class Insert:
                def insert(self, *rows: Any, **options: Any) -> Any:
                    table.insert(*rows, **options).run()
                    raise ConnectionError("the answer was lost")

            return Insert()

    old.rr = Lossy()
    answer = old.heartbeat(output)
    old.rr = real
    old.heartbeat(answer)
    assert len(old.healthy_services("worker")) == 2, "one service, two records"


class Lossy:
    """A keeper that loses answers to writes, and remembers how to deliver them again."""

    def __init__(self, records: Any) -> None:
        self.records, self.lose, self.duplicates = records, 0, []  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.records, name)
        if name not in ("register", "refresh", "remove"):
            return call

        async def lossy(*args: Any) -> Any:
            self.duplicates.append(lambda: call(*args))
            answer = await call(*args)
            if self.lose:
                self.lose -= 1
                raise StoreUnavailable("the answer was lost")
            return answer

        return lossy


@pytest.fixture
def lossy(url: str) -> Iterator[tuple[ServiceRegistry, Lossy]]:
    with ServiceRegistry(url) as registry:
        registry.inner.records = keeper = Lossy(registry.inner.records)  # type: ignore[assignment]
        yield registry, keeper


def count(registry: ServiceRegistry) -> int:
    return len(registry.healthy_services("worker"))


def test_7_no_late_duplicate_revives_a_service(lossy: tuple[ServiceRegistry, Lossy]) -> None:
    registry, keeper = lossy
    output = {"id": "a", "role": "worker", "ttl": 60, "load": 1}
    keeper.lose = 1  # the registration is in doubt; it is tried again within the call
    for _ in range(3):
        registry.heartbeat(output)
    duplicates = list(keeper.duplicates)
    assert len(duplicates) == 4
    registry.unregister("a")
    assert count(registry) == 0
    for duplicate in duplicates:
        registry.portal.call(duplicate)
        assert count(registry) == 0
    # It is no ban: a service that starts again under that id is there again.
    registry.heartbeat(output)
    assert count(registry) == 1
    for duplicate in keeper.duplicates[-1:]:
        registry.portal.call(duplicate)
    assert count(registry) == 1


def test_7_what_refuses_duplicates_is_seen_by_nobody_and_goes(
    lossy: tuple[ServiceRegistry, Lossy],
) -> None:
    registry, keeper = lossy
    keeper.lose = 1
    registry.heartbeat({"id": "a", "role": "worker", "ttl": 0.2, "load": 1})
    registry.unregister("a")
    assert registry.healthy_services() == []
    assert registry.bad_records() == []
    time.sleep(0.5)
    assert registry.purge_stale_services() == {"deleted": 1}


def test_7_a_lost_answer_leaves_no_twin(lossy: tuple[ServiceRegistry, Lossy]) -> None:
    registry, keeper = lossy
    output = {"role": "worker", "ttl": 60, "load": 1}
    keeper.lose = 1
    first = registry.heartbeat(output)  # tried again within the call
    assert count(registry) == 1
    registry.unregister(first["id"])
    registry.inner.session.timeout = 0.5
    keeper.lose = 10**6
    with pytest.raises(StoreUnavailable):
        registry.heartbeat(output)
    keeper.lose = 0
    again = registry.heartbeat(output)  # tried again by the caller, who knows no id
    assert [record["id"] for record in registry.healthy_services("worker")] == [again["id"]]


def test_7_an_unregistering_whose_answer_is_lost_warns_of_nothing(
    lossy: tuple[ServiceRegistry, Lossy], caplog: pytest.LogCaptureFixture
) -> None:
    registry, keeper = lossy
    registry.heartbeat({"id": "a", "role": "worker", "ttl": 60, "load": 1})
    keeper.lose = 1
    registry.unregister("a")
    assert count(registry) == 0
    assert "unknown_id" not in caplog.text


def test_8_of_doublethink_a_table_without_its_index_is_broken_for_good(old: Any) -> None:
    old.rr.table("services").index_drop("role").run()
    again = ancestor_like(old)
    again.heartbeat({"role": "worker", "ttl": 60, "load": 1})
    for _ in range(2):
        with pytest.raises(Exception, match="Index `role` was not found"):
            list(again.healthy_services("worker"))
    old.rr.table("services").index_create("role").run()


def ancestor_like(old: Any) -> Any:
    return type(old)(old.rr, old.table)


def test_8_of_doublethink_the_first_lookup_on_a_fresh_database_fails(
    rethinkdb_server: Server | External,
) -> None:
    """Whoever makes the table makes its index in a query of its own, and waits for neither."""
    module, url = doublethink(), rethinkdb_server.url(new_database())
    address, _, name = url.removeprefix("rethinkdb://").partition("/")
    rr = module.Rethinker([address], db=name)
    failures: list[str] = []

    def lookup() -> None:
        with pytest.raises(Exception, match="Index `role` was not found") as caught:
            ancestor(url).healthy_service("worker")
        failures.append(str(caught.value))

    try:
        module.ServiceRegistry(Paused(rr, 1, lookup))
        assert len(failures) == 1
        rr.table("services").index_wait("role").run()
        assert ancestor(url).healthy_service("worker") is None
    finally:
        rr.db_drop(name).run()


def test_8_setting_up_is_a_step_of_its_own_and_many_may_take_it_at_once(own_server: Server) -> None:
    url = own_server.url()
    failed: list[BaseException] = []

    def start() -> None:
        try:
            set_up(url)
            with ServiceRegistry(url) as registry:
                registry.heartbeat({"role": "worker", "ttl": 60, "load": 1})
                assert registry.healthy_service("worker") is not None
        except BaseException as err:
            failed.append(err)

    with ServiceRegistry(url) as early, pytest.raises(NotSetUp, match="coord init"):
        early.healthy_service("worker")
    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    with ServiceRegistry(url) as registry:
        assert len(registry.healthy_services("worker")) == 4
        assert (
            sorted(raw_records.run(registry, raw_records.reql(registry).table_list())).count(
                "services"
            )
            == 1
        )


def test_8_a_missing_index_is_made_by_whoever_looks_first(three: Three, database: str) -> None:
    registry = three[0]
    table = registry.inner.records._table  # type: ignore[attr-defined]
    registry.heartbeat({"id": "a", "role": "worker", "ttl": 60, "load": 1})
    raw_records.run(registry, table.index_drop("role"))
    others = [ServiceRegistry(database) for _ in range(8)]
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda item=other: results.append(item.healthy_services("worker")))
        for other in others
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for other in others:
        other.close()
    assert [len(row) for row in results] == [1] * 8
    assert raw_records.run(registry, table.index_list()) == ["role"]


def test_9_of_doublethink_all_land_on_one(old: Any, three: Three) -> None:
    for number in range(10):
        old.heartbeat({"id": f"s{number}", "role": "worker", "ttl": 60, "load": number})
    assert {old.healthy_service("worker")["id"] for _ in range(30)} == {"s0"}
    spread = {(three[0].healthy_service("worker", choose="spread") or {})["id"] for _ in range(60)}
    assert len(spread) > 3
    assert "s9" not in spread, "of two the better, so never the worst"


def test_10_of_doublethink_replicas_follow_the_list_of_seeds(own_server: Server) -> None:
    module = doublethink()
    seeds = [own_server.address, f"localhost:{own_server.port}", own_server.address]
    with pytest.raises(Exception, match="replicas"):
        module.ServiceRegistry(module.Rethinker(seeds, db="seeds"))
    # Set up by coord, it follows the size of the cluster.
    url = f"rethinkdb://{','.join(dict.fromkeys(seeds))}/other"
    set_up(url)
    with ServiceRegistry(url) as registry:
        registry.heartbeat({"id": "a", "role": "worker", "ttl": 60, "load": 1})
        assert registry.healthy_service("worker") is not None
