"""Setting up and checking: fresh, again, by many at once, and as somebody without the rights."""

from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path

import pytest

import coord
from coord.cli import main
from coord.core.operations import Claim, Release, Renew
from coord.errors import AccessDenied, BadArgument, NotSetUp, StoreUnavailable
from coord.stores.failures import RequestError
from coord.stores.postgresql import admin
from coord.stores.protocol import Finding
from tests.stores.postgresql.kit import answered, execute, failed, opened, run, schema_of
from tests.support.forked import at_once
from tests.support.postgresql_server import Server
from tests.support.refused_calls import check_refusals
from tests.support.waits import eventually


@pytest.fixture
def fresh_url(postgresql_server: Server) -> str:
    """A schema that does not exist."""
    return postgresql_server.url(options=f"?schema=test_{secrets.token_hex(6)}")


def set_up(url: str, **options: object) -> list[str]:
    return list(run(lambda: admin(url).setup(options, 60)))


def findings(url: str) -> list[Finding]:
    return list(run(lambda: admin(url).check(20)))


def test_fresh_and_again(fresh_url: str) -> None:
    with pytest.raises(NotSetUp, match=r"run `coord init --url '?postgresql://"):
        coord.connect(fresh_url)

    async def not_set_up() -> None:
        async with opened(fresh_url) as store:
            for result in (
                await store.claim(Claim("role", "a", 1, 30.0), 5),
                *await store.renew([Renew("role", "a", 1, 2, 30.0)], 5),
                await store.release(Release("role", "a", 1, 2), 5),
            ):
                assert (failed(result).unknown, failed(result).permanent) == (False, True)
            with pytest.raises(NotSetUp):
                await store.read(None, 5)

    run(not_set_up)
    assert set_up(fresh_url) == [f"created the schema {schema_of(fresh_url)}"]
    assert set_up(fresh_url, guard=None, replicas=None) == []
    assert len(set_up(fresh_url, guard=True)) == 1
    with coord.connect(fresh_url) as coordinator:
        leadership = coordinator.leadership("role", ttl=5)
        assert leadership.acquire(timeout=30).token == 1
        leadership.stop()
    assert {finding.level for finding in findings(fresh_url)} == {"ok"}


@pytest.mark.parametrize("options", [{"replicas": 3}, {"guard": False}, {"path": "x"}], ids=str)
def test_options_that_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(BadArgument, match="must be"):
        set_up("postgresql://127.0.0.1:1/x", **options)


def test_eight_processes_at_once(fresh_url: str) -> None:
    imports = "import asyncio, asyncpg; from coord.stores.postgresql import admin"
    at_once(8, imports, "asyncio.run(admin(sys.argv[1]).setup({}, 60))", fresh_url)
    with coord.connect(fresh_url):
        pass


def test_init_and_doctor_by_the_command_line(
    fresh_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*words: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--url", fresh_url])
        return ended.value.code or 0, capsys.readouterr().out

    status, printed = command("doctor")
    assert status == 1
    assert "coord init" in printed
    status, printed = command("init")
    assert (status, "is ready" in printed) == (0, True)
    assert command("doctor")[0] == 0
    assert command("run", "role")[0] != 0  # it needs a COMMAND
    assert command("status")[0] == 0


def test_a_user_with_few_rights(fresh_url: str) -> None:
    set_up(fresh_url)
    schema, user = schema_of(fresh_url), f"app_{secrets.token_hex(4)}"
    execute(fresh_url, f"CREATE USER {user}")
    url = fresh_url.replace("postgres@", f"{user}@")

    async def denied() -> None:
        async with opened(url) as store:
            with pytest.raises(AccessDenied, match="grants"):
                await store.open(5)
            assert failed(await store.claim(Claim("role", "a", 1, 5.0), 5)).refusal is AccessDenied

    run(denied)
    run(lambda: check_refusals(url))
    execute(fresh_url, f"GRANT USAGE ON SCHEMA {schema} TO {user}")
    run(denied)  # nobody else may call the functions, either
    execute(fresh_url, f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {user}")

    async def all_of_it() -> None:
        async with opened(url) as store:
            await store.open(5)
            assert answered(await store.claim(Claim("role", "a", 1, 5.0), 5)).applied
            assert answered((await store.renew([Renew("role", "a", 1, 2, 5.0)], 5))[0]).applied
            feed = store.watch(["role"])
            assert (await anext(feed)).holder == "a"
            await feed.aclose()  # type: ignore[attr-defined] # it is a generator
            assert answered(await store.release(Release("role", "a", 1, 3), 5)).applied
            assert [(row.role, row.token) for row in await store.read(None, 5)] == [("role", 1)]
            assert len(await store.past(None, 5)) == 1

    run(all_of_it)
    for forbidden in (
        f"UPDATE {schema}.leases SET token = 0",
        f"DELETE FROM {schema}.leases",
        f"SELECT * FROM {schema}.leases",
        f"SELECT {schema}.raise_token_floor_1(0, '{{}}')",
    ):
        with pytest.raises(RequestError, match="denies access"):
            execute(url, forbidden)
    # A table of the same name in the schema of temporary tables does not fool the functions.

    async def with_a_temporary_table() -> None:
        async with opened(url) as store:
            connection = await store.pool.open(5)
            await connection.raw.execute("CREATE TEMP TABLE leases (role text)")
            read = f"SELECT * FROM {schema}.read_1(NULL)"
            assert len(await connection.raw.fetch(read)) == 1

    run(with_a_temporary_table)
    assert {finding.level for finding in findings(url)} <= {"ok", "warn"}
    with pytest.raises(AccessDenied):
        set_up(url)


def test_tokens_after_a_restore(fresh_url: str) -> None:
    set_up(fresh_url)

    async def claim(role: str) -> int:
        async with opened(fresh_url) as store:
            again = Claim(role, "a", 1, 5.0, takeover=True)
            return answered(await store.claim(again, 5)).lease.token

    assert run(lambda: claim("known")) == 1
    floor = admin(fresh_url).raise_token_floor
    assert run(lambda: floor(40, ["known", "new", "new"], 20)) == 2
    assert run(lambda: floor(40, ["known", "new"], 20)) == 0
    assert [run(lambda name=role: claim(name)) for role in ("known", "new")] == [41, 41]
    with pytest.raises(BadArgument):
        run(lambda: floor(-1, [], 20))


def test_doctor_finds_a_missing_table_and_missing_rights(own_postgresql_server: Server) -> None:
    server = own_postgresql_server
    url = server.url()
    set_up(url)
    execute(url, "CREATE ROLE app LOGIN", "GRANT USAGE ON SCHEMA coord TO app")

    def wrong(who: str) -> list[str]:
        shown = findings(server.url(who=who))
        return [finding.detail for finding in shown if finding.what == "schema coord"]

    (detail,) = wrong("app")
    assert re.fullmatch(r"the user may not call \d+ functions", detail)
    execute(url, "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA coord TO app")
    fine = ["has the tables and the functions, which this user may call"]
    assert wrong("app") == wrong("postgres") == fine
    execute(url, "DROP TABLE coord.kept CASCADE", "DROP TABLE coord.records CASCADE")
    assert wrong("app") == ["these tables do not exist: kept, records"]


def test_doctor_names_what_is_wrong(own_postgresql_server: Server) -> None:
    url = own_postgresql_server.url()
    missing = [finding for finding in findings(url) if finding.level == "error"]
    assert [finding.what for finding in missing] == ["schema coord"]
    assert "coord init" in missing[0].advice
    set_up(url)
    execute(
        url,
        "ALTER TABLE coord.leases SET UNLOGGED",
        "ALTER SYSTEM SET synchronous_commit = off",
        "ALTER SYSTEM SET fsync = off",
        "ALTER SYSTEM SET full_page_writes = off",
        "SELECT pg_reload_conf()",
    )
    own_postgresql_server.restart()
    wrong = [finding for finding in findings(url) if finding.level == "error"]
    for text in ("not logged", "synchronous_commit is off", "fsync", "full_page_writes"):
        assert any(text in item.detail for item in wrong), (text, wrong)
    assert all(item.advice for item in wrong)
    unreachable = url.replace(f":{own_postgresql_server.port}", ":1")
    (alone,) = findings(unreachable)
    assert (alone.level, alone.what) == ("error", "connection")
    with pytest.raises(StoreUnavailable):
        run(lambda: admin(unreachable).setup({}, 5))


def test_no_admin_method_shows_the_password() -> None:
    url = "postgresql://me:geheim@127.0.0.1:1/db"
    with pytest.raises(StoreUnavailable) as caught:
        asyncio.run(admin(url).setup({}, 2))
    assert "geheim" not in str(caught.value)
    assert "geheim" not in repr(asyncio.run(admin(url).check(2))) + repr(admin(url))


def test_passwords_of_the_environment(
    own_postgresql_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGPASSWORD, PGUSER and the password file, as with other programs of PostgreSQL."""
    set_up(own_postgresql_server.url())
    execute(own_postgresql_server.url(), "ALTER USER postgres PASSWORD 'geheim'")
    hba = own_postgresql_server.data / "pg_hba.conf"
    hba.write_text(hba.read_text().replace("trust", "scram-sha-256"))
    own_postgresql_server.restart()
    url = own_postgresql_server.url().replace("postgres@", "")

    async def open_it() -> None:
        async with opened(url) as store:
            await store.open(10)

    monkeypatch.setenv("PGUSER", "postgres")
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    with pytest.raises(AccessDenied):
        run(open_it)
    passfile = tmp_path / "pgpass"
    passfile.write_text("*:*:*:postgres:geheim\n")
    passfile.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    run(open_it)
    monkeypatch.delenv("PGPASSFILE")
    monkeypatch.setenv("PGPASSWORD", "geheim")
    run(open_it)


def test_a_dropped_table_is_named_and_used_again(fresh_url: str) -> None:
    """A leader goes on by itself after `coord init`, with a greater token."""
    set_up(fresh_url)
    with coord.connect(fresh_url) as c:
        lead = c.leadership("r", ttl=1)
        lead.start()
        assert lead.wait(20)
        execute(fresh_url, f"DROP TABLE {schema_of(fresh_url)}.leases CASCADE")
        eventually(lambda: not lead.is_leader)
        with pytest.raises(NotSetUp, match="run `coord init --url"):
            c.leader("r")
        # The last request of the election may have been too short for a new connection.
        eventually(lambda: "is not set up" in coord.health(c).store_trouble)
        set_up(fresh_url)
        assert lead.wait(60)
        assert lead.term.token == 2
