"""`coord migrate` between all kinds of stores: tokens go on, what roles keep goes along, and nobody
leads at both ends."""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import coord
from coord.core.operations import Answer, Claim, Release, Result
from coord.stores.protocol import HasKept
from tests.support.levels import some
from tests.support.processes import Runs, Start
from tests.support.store_urls import STORES, NewURL
from tests.support.waits import eventually

KINDS = [kind for kind in STORES if kind != "memory"]
AROUND = list(zip(KINDS, [*KINDS[1:], KINDS[0]], strict=True))
"""Each kind is a source once, and a destination once."""
PAIRS = list(itertools.permutations(KINDS, 2))
KEPT = '{"notes":{"day":"2026-11-30"}}'


def applied(result: Result) -> Answer:
    assert isinstance(result, Answer), result
    assert result.applied
    return result


def terms(url: str, role: str, count: int, keep: str | None = None) -> int:
    """Lead the role so many times; return the last token. The last term keeps a text."""

    async def lead(session: Any) -> int:
        token = 0
        for number in range(count):
            claim = Claim(role, f"holder-{number}", 1, 10.0)
            token = applied(await session.submit(claim, 10)).lease.token
            text = keep if number == count - 1 else None
            release = Release(role, f"holder-{number}", token, 2, keep=text)
            applied(await session.submit(release, 10))
        return token

    with coord.connect(url) as c:
        return c.portal.call(lambda: lead(c.session))


def kept(url: str, role: str) -> str:
    """Return the text that the role keeps."""
    with coord.connect(url) as c:
        store = c.inner.store
        assert isinstance(store, HasKept)
        return c.portal.call(lambda: store.kept(role, 10)).text


def keeps(url: str) -> bool:
    with coord.connect(url) as c:
        return isinstance(c.inner.store, HasKept)


def migrate(runs: Runs, source: str, destination: str, *words: str) -> tuple[int, str, str]:
    return runs.answer("migrate", "--from", source, "--to", destination, *words, within=60)


@pytest.mark.parametrize("pair", some(PAIRS, lambda pair: pair in AROUND[::2], name=" to ".join))
def test_tokens_and_kept_texts_go_along(runs: Runs, new_url: NewURL, pair: tuple[str, str]) -> None:
    old, new = map(new_url, pair)
    text = KEPT if keeps(old) and keeps(new) else None
    tokens = {"job": terms(old, "job", 3, text), "other": terms(old, "other", 1)}
    terms(new, "job", 1)
    unrelated = terms(new, "unrelated", 1)
    status, out, err = migrate(runs, old, new, "--json")
    assert (status, err) == (0, "")
    roles = json.loads(out)["roles"]
    assert set(roles) == {"job", "other"}
    for role, token in tokens.items():
        assert roles[role]["from"] == token + 1  # the term of the command itself
        assert terms(new, role, 1) > roles[role]["to"] > roles[role]["from"]
    if text is not None:
        assert (kept(new, "job"), kept(new, "other")) == (KEPT, "")
    assert (
        terms(new, "unrelated", 1) > unrelated
    )  # and its own tokens are not those of another role
    with coord.connect(old) as c:
        assert c.leaders() == []
        assert c.history("job")[0].info["name"] == "coord migrate"
    status, out, _ = migrate(runs, old, new)  # once more, which does no harm
    assert (status, out.splitlines()[-1][:20]) == (0, "carried 2 roles over")


def test_nobody_may_lead(runs: Runs, new_url: NewURL) -> None:
    old, new = new_url("sqlite"), new_url("sqlite")
    terms(old, "job", 1)
    for led, advice in ((old, "--hold"), (new, "do not know the tokens")):
        with coord.connect(led) as c, c.leadership("job", info={"name": "one"}) as lead:
            assert lead.wait(10)
            status, out, err = migrate(runs, old, new)
            assert (status, out) == (1, "")
            assert f"{led} has leaders ('job': one" in err
            assert advice in err
            assert lead.is_leader
    assert terms(new, "job", 1) == 2  # nothing was carried over


def test_a_running_leader_is_replaced_without_a_second_one(
    runs: Runs, start: Start, new_url: NewURL
) -> None:
    """The procedure of the documentation: processes move to the new store one after another."""
    old, new = new_url("sqlite"), new_url("sqlite")
    with coord.connect(old) as before, coord.connect(new) as after:
        with before.leadership("job", ttl=5) as first, before.leadership("job", ttl=5) as waits:
            assert first.wait(10)
            token = first.term.token
            moving = start("-m", "coord", "migrate", "--from", old, "--to", new, "--hold", "--json")
            assert moving.stdout is not None
            output = json.loads(moving.stdout.readline())
            assert not first.is_leader
            assert output["roles"]["job"]["from"] == token + 1
            with after.leadership("job", ttl=5) as moved:
                assert moved.wait(10)
                assert moved.term.token > output["roles"]["job"]["to"]
                assert not first.is_leader
                assert not waits.wait(1.0)
                first.stop()
                waits.stop()
                moving.send_signal(signal.SIGINT)
                assert moving.wait(20) == 0
                assert moved.is_leader
        assert before.history("job")[1].by == before.history("job")[0].info["by"]
        assert before.leader("job") is None


def test_a_migration_that_is_interrupted_says_that_it_can_be_repeated(
    runs: Runs, start: Start, new_url: NewURL
) -> None:
    old, new = new_url("sqlite"), new_url("sqlite")
    with coord.connect(old) as before:
        # Its leader waits for its work, so the command waits for the role.
        released = threading.Event()
        lead = before.leadership("job", ttl=30, on_lost=lambda *_: released.wait(30))
        term = lead.acquire(timeout=10)
        moving = start.fork("-m", "coord", "migrate", "--from", old, "--to", new, "--hold")
        assert term.lost.wait(20)
        moving.send_signal(signal.SIGINT)
        _, err = moving.communicate(timeout=20)
        released.set()
        assert moving.returncode == 130
        assert err == (
            f"coord: interrupted: {new} may have the tokens of some roles already; run the command "
            "again for the others\n"
        )


def test_a_source_that_elects_another_meanwhile_is_reported(
    runs: Runs, start: Start, new_url: NewURL
) -> None:
    old, new = new_url("sqlite"), new_url("sqlite")
    terms(old, "job", 1)
    moving = start.fork("-m", "coord", "migrate", "--from", old, "--to", new, "--hold", "--json")
    assert moving.stdout is not None
    assert json.loads(moving.stdout.readline())["roles"]
    with coord.connect(old) as c:
        leader = c.leader("job")
        assert leader is not None
        with c.leadership("job", info={"name": "old one"}) as lead:
            eventually(lambda: c.candidates("job"))
            c.request_transfer("job", "old one")
            assert lead.wait(20)
        _, err = moving.communicate(timeout=20)
    assert moving.returncode == 77
    assert f"lost 'job' at {old}: a process with the old URL may be elected there" in err


def test_an_empty_source_and_wrong_urls(runs: Runs, new_url: NewURL) -> None:
    old, new = new_url("sqlite"), new_url("sqlite")
    status, out, _ = migrate(runs, old, new)
    assert (status, out) == (0, f"there is no role on {old}: nothing to carry over\n")
    terms(old, "job", 1)
    for words, expected in (
        ((old, old), "invalid --to"),
        ((old, "memory://"), "invalid --to 'memory://'"),
        (("memory://a", new), "invalid --from 'memory://a'"),
        ((old, new, "--timeout", "-1"), "invalid --timeout"),
    ):
        status, out, err = migrate(runs, *words)
        assert (status, out) == (2, "")
        assert err.startswith(f"coord: {expected}")
    for wrong in (f"{old}.typo", "redis://127.0.0.1:1"):
        status, out, err = migrate(runs, wrong, new)
        assert (status, out) == (78 if wrong.endswith("typo") else 69, "")
        assert len(err.splitlines()) == 1
    assert not Path(f"{old}.typo".removeprefix("sqlite://")).exists()


def test_a_retired_role_is_carried_over_if_it_is_named(runs: Runs, new_url: NewURL) -> None:
    old, new = new_url("sqlite"), new_url("sqlite")
    last = terms(old, "tenant-1", 5)
    time.sleep(0.2)
    with coord.connect(old) as c:
        assert c.retire("tenant-", unused=0.1) == ["tenant-1"]
    status, out, _ = migrate(runs, old, new)
    assert (status, out) == (0, f"there is no role on {old}: nothing to carry over\n")
    status, out, err = migrate(runs, old, new, "--role", "tenant-1", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["roles"]["tenant-1"]["from"] > last
    assert terms(new, "tenant-1", 1) > last
    assert migrate(runs, old, new, "--role", "")[0] == 2


def test_a_paused_role_stays_paused_at_the_source(runs: Runs, new_url: NewURL) -> None:
    old, new = new_url("sqlite"), new_url("sqlite")
    last = terms(old, "job", 3, KEPT)
    assert runs.answer("pause", "job", "--yes", "--url", old)[0] == 0
    status, out, err = migrate(runs, old, new, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["roles"]["job"] == {"from": last, "to": last + 1}
    assert kept(new, "job") == KEPT
    assert terms(new, "job", 1) == last + 2
    with coord.connect(old) as c:
        assert c.leadership("job", ttl=5).acquire(blocking=False) is None
    assert runs.answer("pause", "never-led", "--yes", "--url", old)[0] == 0
    status, out, err = migrate(runs, old, new_url("sqlite"), "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["roles"]["never-led"] == {"from": 0, "to": 1}
    status, out, err = migrate(runs, new, old)
    assert (status, out) == (78, "")
    assert f"'job' is paused at {old}; run `coord resume job` there first" in err


def test_the_leader_before_a_pause_is_outlasted(runs: Runs, new_url: NewURL) -> None:
    old = new_url("sqlite")
    with coord.connect(old) as c:
        session, claim = c.session, Claim("job", "hangs", 1, 2.5)
        applied(c.portal.call(lambda: session.submit(claim, 10)))
        c.pause("job", timeout=0)
        status, out, err = migrate(runs, old, new_url("sqlite"), "--timeout", "0.5")
        assert (status, out) == (76, "")
        assert "the lease before the pause has not run out" in err
        assert migrate(runs, old, new_url("sqlite"))[::2] == (0, "")
        (row,) = c.portal.call(lambda: session.read(["job"]))
        assert row.paused
        assert row.remaining <= 0
