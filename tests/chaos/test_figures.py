"""The figures of a run, and what the judge of it makes of a history."""

from __future__ import annotations

from typing import Any

from coord.testing.history import History
from coord.testing.history.events import Event
from tests.chaos import document, figures
from tests.chaos.figures import Reign
from tests.chaos.scene import Fault


def test_stale_writes_are_counted_in_the_order_of_the_resource() -> None:
    journal = [
        {"token": token, "accepted": accepted}
        for token, accepted in [(1, 1), (2, 1), (1, 0), (2, 1), (1, 1)]
    ]
    assert figures.stale(journal) == (2, 1)


def test_callbacks_that_do_not_pair_are_named() -> None:
    def note(what: str, token: int = 0) -> dict[str, Any]:
        return {"process": "w", "note": what, "token": token}

    assert (
        figures.unpaired([note("elected", 1), note("lost", 1), note("elected", 2), note("lost", 2)])
        == []
    )
    assert figures.unpaired([note("elected", 1)]) == []
    for wrong in (
        [note("elected", 1), note("elected", 2)],
        [note("lost", 1)],
        [note("elected", 1), note("lost", 1), note("lost", 1)],
        [note("elected", 1), note("stopped")],
    ):
        assert len(figures.unpaired(wrong)) == 1


def test_failovers_are_told_from_faults_that_missed_or_mixed() -> None:
    terms = [Reign(1, "a", 0.0, 10.0), Reign(2, "b", 12.0, 20.0), Reign(3, "c", 25.0, 40.0)]
    result = figures.failovers(
        [
            Fault("kill", 10.0, 11.0, ["a"]),
            Fault("pause", 15.0, 15.1, ["b"]),
            Fault("stop", 15.5, 18.0, ["a"]),
            Fault("server killed", 20.0, 24.0, everybody=True),
            Fault("kill", 21.0, 22.0, ["b"]),
        ],
        terms,
    )
    assert (result["kill"]["count"], result["kill"]["median"], result["kill"]["mixed"]) == (
        1,
        2.0,
        1,
    )
    assert result["pause"]["led through"] == 1
    assert result["stop"]["missed"] == 1
    assert result["server killed"]["mixed"] == 1
    alone = figures.failovers([Fault("server killed", 20.0, 24.0, everybody=True)], terms)
    assert alone["server killed"]["worst"] == 1.0


def test_transfers_are_told_by_who_led_next() -> None:
    terms = [Reign(1, "a", 0.0, 1.0), Reign(2, "b", 1.1, 3.0), Reign(3, "c", 3.5, 9.0)]
    request = [
        Fault("transfer", to="b", to_is="alive", token=1),
        Fault("transfer", to="a", to_is="killed", token=2),
        Fault("transfer", to="b", to_is="alive", token=3, missed=True),
        Fault("kill"),
    ]
    assert figures.handovers(request, terms) == {
        "alive": {"asked": 2, "it led": 1, "another led": 0, "came to nothing": 1},
        "killed": {"asked": 1, "it led": 0, "another led": 1, "came to nothing": 0},
    }


def test_stale_writes_to_the_document_are_those_that_met_a_newer_token() -> None:
    history = History()
    for token, met, accepted in [
        (1, None, True),
        (2, 1, True),
        (1, 2, False),
        (2, 2, True),
        (1, 2, True),
    ]:
        key = history.invoke("w", "write", document.DOCUMENT, token=token)
        history.ok(key, accepted=accepted, met=met)
    result = document.met(history.operations())
    assert result == {"writes": 5, "stale_attempted": 2, "stale_refused": 1, "stale_accepted": 1}
    assert [violation.startswith("fencing:") for violation in figures.violations(history)] == [True]


def test_spread_takes_the_nearest_rank() -> None:
    assert figures.spread([float(n) for n in range(1, 201)]) == {
        "count": 200,
        "median": 100.5,
        "p99": 198.0,
        "worst": 200.0,
    }
    assert figures.spread([]) == {"count": 0}


def test_the_longest_time_without_a_leader_is_explained_by_the_faults() -> None:
    terms = [Reign(1, "a", 0.0, 10.0), Reign(2, "b", 11.0, 20.0), Reign(3, "c", 25.0, 40.0)]
    gap = figures.longest_gap(terms)
    assert gap == (20.0, 25.0)
    faults = [
        Fault("kill", 10.0, 11.0),
        Fault("promotion", 19.0, 24.0, detail="node 1"),
        Fault("stop", 24.5, 26.0),
        Fault("pause", 26.0, 27.0),
    ]
    assert figures.faults_of(gap, faults, 2.0) == ["promotion (node 1)", "stop"]


def claim(process: str, holder: str, op: int, at: float, expected: Any = None) -> Event:
    value = {
        "holder": holder,
        "beat": 1,
        "expected": expected,
        "takeover": True,
        "skew": 0.0,
        "floor": 0,
    }
    return Event("invoke", at, process, op, "claim", "job", value)


def applied(process: str, op: int, at: float, row: list[Any]) -> Event:
    return Event("ok", at, process, op, "claim", "job", {"applied": True, "row": row})


def test_a_store_that_loses_claims_may_forget_them_but_not_their_tokens() -> None:
    lost = [claim("a", "a", 1, 1.0), applied("a", 1, 1.1, ["a", 5, 1]),
            claim("b", "b", 1, 2.0, ["x", 4, 1]), applied("b", 1, 2.1, ["b", 9, 1])]  # fmt: skip
    assert figures.violations(History(lost), floors=True)
    assert figures.violations(History(lost), floors=True, loses=True) == []
    twice = [*lost[:3], applied("b", 1, 2.1, ["b", 5, 1])]
    result = figures.violations(History(twice), floors=True, loses=True)
    assert [violation.partition(":")[0] for violation in result] == ["tokens"]
    falls = [*lost[:3], applied("b", 1, 2.1, ["b", 3, 1])]
    assert "falls" in figures.violations(History(falls), floors=True, loses=True)[0]


def test_many_first_claims_without_an_answer_do_not_blind_the_judge() -> None:
    lost = [claim(f"lost{n}", f"lost{n}", 1, n / 100) for n in range(40)]
    good = [claim("a", "a", 1, 1.0), applied("a", 1, 1.1, ["a", 1, 1]),
            claim("b", "b", 1, 2.0, ["a", 1, 1]), applied("b", 1, 2.1, ["b", 2, 1])]  # fmt: skip
    assert figures.violations(History([*lost, *good])) == []
    # One of them did take effect, unseen by anybody: only the whole history explains the token.
    gap = [*lost, *good[:2],
           claim("b", "b", 1, 2.0), applied("b", 1, 2.1, ["b", 3, 1])]  # fmt: skip
    assert figures.violations(History(gap)) == []
    assert len(figures.violations(History(gap[len(lost) :]))) == 1


def test_a_killed_server_may_lose_a_release_of_the_last_moment_and_no_other() -> None:
    request = {"holder": "a", "token": 1, "beat": 2, "linger": 0.0, "to": None}
    back = claim("b", "b", 1, 9.0)
    back = Event("invoke", 9.0, "b", 1, "claim", "job", {**back.value, "takeover": False})
    refused = Event("ok", 9.1, "b", 1, "claim", "job", {"applied": False, "row": ["a", 1, 1]})
    lost = [claim("a", "a", 1, 1.0), applied("a", 1, 1.1, ["a", 1, 1]),
            Event("invoke", 5.0, "a", 2, "release", "job", request),
            Event("ok", 5.1, "a", 2, "release", "job", {"applied": True, "row": [None, 1, 2]}),
            back, refused]  # fmt: skip
    assert figures.violations(History(lost))

    def judged(kind: str, at: float) -> list[str]:
        faults = [Fault(kind, at, at + 0.5)]
        return figures.violations(figures.with_lost_releases(History(lost), faults))

    assert judged("server killed", 5.2) == []
    assert judged("server killed", 7.5)
    assert judged("server stopped", 5.2)
