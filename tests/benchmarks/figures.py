"""A figure beside its reference of the same run and its aim. Whether the aim is met is computed,
never written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Of = Literal["figure", "ratio", "difference"]


@dataclass(frozen=True)
class Aim:
    """A bound on the figure itself, on its ratio to the reference, or on what it is above the
    reference."""

    sense: Literal["≤", "<", "≥", "="]
    bound: float
    of: Of = "figure"

    def met(self, value: float) -> bool:
        if self.sense == "≤":
            return value <= self.bound
        if self.sense == "<":
            return value < self.bound
        if self.sense == "≥":
            return value >= self.bound
        return value == self.bound

    def text(self, unit: str) -> str:
        if self.of == "ratio":
            return f"{self.sense} {self.bound:.3g} × reference"
        amount = f"{self.sense} {with_unit(self.bound, unit)}"
        return amount if self.of == "figure" else f"{amount} above reference"


@dataclass(frozen=True)
class Reference:
    """What the figure is measured against, in the same unit and the same run."""

    name: str
    value: float


@dataclass(frozen=True)
class Figure:
    what: str
    value: float
    unit: str = ""
    aims: tuple[Aim, ...] = ()
    reference: Reference | None = None

    def measured(self, of: Of) -> float:
        if of == "figure":
            return self.value
        assert self.reference is not None, f"{self.what}: an aim that compares needs a reference"
        return (
            self.value / self.reference.value
            if of == "ratio"
            else self.value - self.reference.value
        )

    @property
    def met(self) -> bool | None:
        """None where nothing is aimed at."""
        return all(aim.met(self.measured(aim.of)) for aim in self.aims) if self.aims else None

    def cells(self) -> list[str]:
        """As `HEAD` has it."""
        reference = self.reference
        return [
            self.what,
            with_unit(self.value, self.unit),
            "; ".join(aim.text(self.unit) for aim in self.aims),
            f"{reference.name}: {with_unit(reference.value, self.unit)}" if reference else "",
            f"{self.measured('ratio'):.2f}" if reference and reference.value else "",
            {None: "", True: "yes", False: "**no**"}[self.met],
        ]


HEAD = ["what", "figure", "aim", "reference in the same run", "ratio", "met"]


def with_unit(value: float, unit: str = "") -> str:
    """A number as people write it: three or four digits, no exponent."""
    whole = value == int(value) or abs(value) >= 1000
    number = f"{value:,.0f}" if whole else f"{value:.3g}"
    return f"{number} {unit}".strip()
