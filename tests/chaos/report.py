"""A run for people: the display while it goes on, and the page at its end.

`python -m tests.chaos.report FILE.json…` prints one table over several runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group


def display(state: dict[str, Any], store: str, seconds: float) -> Group:
    """What is seen while a run goes on, on a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=f"chaos on {store}: {state['seconds']:.0f} of {seconds:.0f} s", title_justify="left"
    )
    table.add_column("fault")
    table.add_column("times", justify="right")
    for kind, count in sorted(state["faults"].items()):
        table.add_row(kind, str(count))
    now = ", ".join(state["active"]) or "calm"
    return Group(
        table,
        Text(
            f"{now}; {state['leader']} leads under {state['token']}, {state['elections']} elections"
        ),
    )


def line(state: dict[str, Any], seconds: float) -> str:
    """The same where there is no terminal."""
    return (
        f"{state['seconds']:6.0f}/{seconds:.0f} s  {sum(state['faults'].values())} faults, "
        f"{state['elections']} elections, {state['leader']} leads under {state['token']}"
    )


def _table(head: list[str], rows: list[list[Any]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return [
        *lines,
        *(
            "| " + " | ".join("" if cell is None else str(cell) for cell in row) + " |"
            for row in rows
        ),
        "",
    ]


def _document(met: dict[str, int] | None) -> list[tuple[str, int]]:
    if met is None:
        return []
    return [
        ("answered writes to the fenced document", met["writes"]),
        ("of these stale, attempted", met["stale_attempted"]),
        ("stale, refused", met["stale_refused"]),
        ("stale, accepted", met["stale_accepted"]),
    ]


def overview(results: list[dict[str, Any]]) -> str:
    """The table over several runs, one row for each."""
    head = ["stage", "features", "s", "faults", "elections", "writes", "overlaps without fencing"]
    head += ["stale writes tried", "refused", "tokens twice", "longest time without a leader, s"]
    head += ["faults during that time"]
    names = ["elections", "fenced_writes", "overlaps_unfenced", "stale_attempted", "stale_refused"]
    names += ["tokens_twice", "longest_without_leader"]
    rows = [
        [result["store"], ", ".join(result["features"]), f"{result['seconds']:.0f}"]
        + [sum(result["faults"].values())]
        + [result[name] for name in names]
        + [", ".join(result["during_that"])]
        for result in results
    ]
    return "\n".join(_table(head, rows))


def markdown(result: dict[str, Any]) -> str:
    """The page."""
    demotions, kept = result["false_demotions"], result["good"]
    lines = [
        f"# Chaos on {result['store']}: {result['seconds']:g} s, {result['workers']} workers, ttl {result['ttl']:g} s, "
        f"seed {result['seed']}" + "".join(f", {feature}" for feature in result["features"]),
        "",
        f"**{'Every promise was kept.' if kept else 'A PROMISE WAS BROKEN.'}**",
        "",
    ]
    lines += [f"- {name}: {value}" for name, value in result["stage"].items()]
    lines += [f"- {name}: {value}" for name, value in result["of_features"].items()]
    lines += [
        f"- seats at the end, {name}: {held}" for name, held in result["held_at_the_end"].items()
    ]
    lines += [f"- during the longest time without a leader: {', '.join(result['during_that'])}"]
    lines += ["", *_table(
        ["what", "count"],
        [
            ["elections", result["elections"]],
            ["faults", sum(result["faults"].values())],
            ["writes to the fenced resource", result["fenced_writes"]],
            ["of these stale, attempted", result["stale_attempted"]],
            ["stale, refused", result["stale_refused"]],
            ["stale, accepted", result["stale_accepted"]],
            ["overlaps at the unfenced resource", result["overlaps_unfenced"]],
            *([name, value] for name, value in _document(result["document"])),
            ["tokens that were given twice", result["tokens_twice"]],
            ["longest time without a leader, s", result["longest_without_leader"]],
            ["violations that the judges found", len(result["violations"])],
            ["on_elected and on_lost unpaired", len(result["callbacks_unpaired"])],
            ["demotions with no fault near", f"{demotions['count']} in {demotions['quiet_seconds']:g} quiet s"],
            ["the same, an hour", demotions["per_hour"]],
            ["led again after the last fault, s", result["recovered_in"]],
            ["all seats of the features held again, s", result["restored_in"]],
            ["the longest that the run itself came late, s", result["longest_lag"]],
        ],
    )]  # fmt: skip
    lines += [
        "## Failover",
        "",
        "Seconds from the fault (where it cut everybody off: from its end) to the next term.",
        "",
    ]
    lines += _table(
        ["fault", "injected", "failovers", "median", "p99", "worst", "led through", "mixed", "not at the leader"],
        [
            [kind, result["faults"].get(kind), first["count"], first.get("median"), first.get("p99"), first.get("worst"),
             first["led through"], first["mixed"], first["missed"]]
            for kind, first in result["failover"].items()
        ],
    )  # fmt: skip
    if result["handovers"]:
        lines += [
            "## Handing over",
            "",
            "What came of a transfer to one candidate, by how that one was.",
            "",
            *_table(
                ["the named one", "asked", "it led next", "another led next", "came to nothing"],
                [[how, *first.values()] for how, first in result["handovers"].items()],
            ),
        ]
    lines += ["## Operations", ""]
    lines += _table(
        ["operation", "ok", "fail", "unknown"],
        [
            [name, first.get("ok", 0), first.get("fail", 0), first.get("unknown", 0)]
            for name, first in result["operations"].items()
        ],
    )
    lines += [
        "## Losses",
        "",
        *_table(["reason", "count"], [[name, n] for name, n in sorted(result["losses"].items())]),
    ]
    for name in ("violations", "callbacks_unpaired", "did_not_stop", "tracebacks", "troubles"):
        if result[name]:
            lines += [f"## {name}", "", "```", *map(str, result[name]), "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(overview([json.loads(Path(name).read_text()) for name in sys.argv[1:]]))
