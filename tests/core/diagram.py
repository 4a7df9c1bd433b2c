"""Writes docs/election.md from the transition table: `python -m tests.core.diagram`."""

from __future__ import annotations

from pathlib import Path

from coord.core.phases import HOLDING, TRANSITIONS, Cue, Phase

PAGE = Path(__file__).parents[2] / "docs" / "election.md"

MEANS = {
    Phase.UNSEEN: "Is a candidate for the role and has not yet seen its row. Its first claim is also its first look.",
    Phase.FOLLOWING: "Has seen the row, and waits until the role may be claimed, or until it may stop.",
    Phase.LEADING: "Holds the lease and believes it, until the deadline. The only phase that leads.",
    Phase.DRAINING: "Gives the role up: believes nothing, renews while the work ends.",
    Phase.RELEASING: "The work has ended; the lease is being given back.",
    Phase.STOPPED: "Is no longer a candidate. No transition leaves this phase.",
}

HEAD = """\
# The state machine

After reading this page you know the phases of a candidate and what changes them.

*Written by `python -m tests.core.diagram` from `TRANSITIONS` in `coord/core/phases.py`; a test fails when it is stale.*

One candidate for one role is in one of {phases} phases. A pair of phase and cue that is not in the table cannot happen:
it raises `ImpossibleCue`, and would be a defect of coord.
"""


def page() -> str:
    lines = [
        HEAD.format(phases=len(Phase)),
        "```mermaid",
        "stateDiagram-v2",
        f"    [*] --> {Phase.UNSEEN.name}",
    ]
    for phase, ways in TRANSITIONS.items():
        for target in Phase:
            cues = [cue.name for cue, to in ways.items() if to is target]
            if cues:
                lines.append(f"    {phase.name} --> {target.name}: {', '.join(cues)}")
    lines += [f"    {phase.name} --> [*]" for phase, ways in TRANSITIONS.items() if not ways]
    lines += [
        "```",
        "",
        "## Phases",
        "",
        "| phase | holds the lease | what it is |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| `{phase.name}` | {'yes' if phase in HOLDING else ''} | {MEANS[phase]} |"
        for phase in Phase
    ]
    lines += ["", "## Cues", "", "| cue | in words | leads |", "| --- | --- | --- |"]
    for cue in Cue:
        ways_of = [
            f"`{a.name}` to `{ways[cue].name}`" for a, ways in TRANSITIONS.items() if cue in ways
        ]
        lines.append(f"| `{cue.name}` | {cue.value} | {'; '.join(ways_of)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
