"""Pictures of what was measured, as small SVG files whose text stays text. Needs matplotlib (the
extra `benchmarks`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One set of axes, both logarithmic: a straight line at 45° is cost in proportion."""

    title: str
    x: str
    y: str
    series: Mapping[str, Points]


@dataclass(frozen=True)
class Bars:
    """Horizontal bars on a logarithmic axis, the first on top, each with its value in `unit`."""

    title: str
    unit: str
    bars: Sequence[tuple[str, float]]
    highlight: str = ""
    """Bars whose name begins with this have a color of their own."""


@dataclass(frozen=True)
class Picture:
    name: str
    alt: str
    panels: Sequence[Union[Panel, Bars]]


def available() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw(picture: Picture, directory: Path) -> Path:
    """Write `<name>.svg`; the same points give the same bytes. Raises ImportError without
    matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "coord",
        "font.size": 9,
        "font.family": "sans-serif",
    }
    with matplotlib.rc_context(settings):
        rows = max((len(p.bars) for p in picture.panels if isinstance(p, Bars)), default=0)
        size = (4 * len(picture.panels), max(3.2, 0.27 * rows + 0.8))
        if rows:
            size = (5 * len(picture.panels), size[1])
        figure, axes = pyplot.subplots(1, len(picture.panels), figsize=size, squeeze=False)
        for axis, panel in zip(axes[0], picture.panels, strict=True):
            _draw_bars(axis, panel) if isinstance(panel, Bars) else _draw_lines(axis, panel)
        figure.tight_layout()
        path = directory / f"{picture.name}.svg"
        figure.savefig(path, metadata={"Date": None, "Creator": None}, facecolor="white")
        pyplot.close(figure)
    return path


def _draw_lines(axis: Any, panel: Panel) -> None:
    from matplotlib.ticker import FuncFormatter

    for name, points in panel.series.items():
        axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y, xscale="log", yscale="log")
    for item in (axis.xaxis, axis.yaxis):
        item.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.minorticks_off()  # they would be most of the file
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)


def _draw_bars(axis: Any, panel: Bars) -> None:
    names = [name for name, _ in panel.bars]
    values = [value for _, value in panel.bars]
    colors = [
        "#1f77b4" if panel.highlight and name.startswith(panel.highlight) else "#b0b0b0"
        for name in names
    ]
    bars = axis.barh(range(len(names)), values, color=colors, height=0.7)
    axis.bar_label(bars, [f"{value:.3g} {panel.unit}" for value in values], padding=3)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlim(min(values) / 2, max(values) * 4)  # leaves room for the longest label
    axis.set_title(panel.title)
    axis.tick_params(axis="y", length=0)
    axis.xaxis.set_visible(False)  # each bar has its value
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
