"""docs/election.md shows the transition table as it is."""

from __future__ import annotations

from coord.core.phases import TRANSITIONS, Cue, Phase
from tests.core import diagram


def test_the_page_is_current() -> None:
    assert diagram.PAGE.read_text(encoding="utf-8") == diagram.page(), (
        "run: python -m tests.core.diagram"
    )


def test_the_page_tells_every_transition() -> None:
    text = diagram.page()
    for phase, ways in TRANSITIONS.items():
        for cue, target in ways.items():
            row = next(line for line in text.splitlines() if line.startswith(f"| `{cue.name}` |"))
            assert f"`{phase.name}` to `{target.name}`" in row


def test_every_phase_can_be_reached_and_every_cue_leads_somewhere() -> None:
    reached, grew = {Phase.UNSEEN}, True
    while grew:
        further = reached | {to for phase in reached for to in TRANSITIONS[phase].values()}
        grew, reached = further != reached, further
    assert reached == set(Phase)
    assert {cue for ways in TRANSITIONS.values() for cue in ways} == set(Cue)
