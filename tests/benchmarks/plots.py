"""Pictures of how cost grows, as small SVG files whose text stays text. Needs matplotlib (the extra
`benchmarks`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One set of axes, both logarithmic: a straight line at 45° is cost in proportion."""

    title: str
    x: str
    y: str
    series: Mapping[str, Points]


@dataclass(frozen=True)
class Picture:
    name: str
    alt: str
    panels: Sequence[Panel]


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
    from matplotlib.ticker import FuncFormatter

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "coord",
        "font.size": 9,
        "font.family": "sans-serif",
    }
    with matplotlib.rc_context(settings):
        figure, axes = pyplot.subplots(
            1, len(picture.panels), figsize=(4 * len(picture.panels), 3.2), squeeze=False
        )
        for axis, panel in zip(axes[0], picture.panels, strict=True):
            for name, points in panel.series.items():
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
            axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y, xscale="log", yscale="log")
            for item in (axis.xaxis, axis.yaxis):
                item.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axis.minorticks_off()  # they would be most of the file
            axis.grid(alpha=0.3)
            axis.legend(frameon=False)
        figure.tight_layout()
        path = directory / f"{picture.name}.svg"
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    return path
