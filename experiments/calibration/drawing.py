"""What the intervals of unseen rays cover, scan by scan, beside the range that is told."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_TOLD, _NOW, _BEFORE, _NOMINAL = "#93c5fd", "#1d4ed8", "#dc2626", "#111827"


def draw(now: Sequence[Mapping], before: Sequence[Mapping]) -> Figure:
    """Of the same scans, in the same order, by the choice as it is and by another."""
    figure = Figure(figsize=(10.0, 0.28 * len(now) + 1.6), layout="constrained")
    for axes, level in zip(figure.subplots(1, 2, sharey=True), ("68", "95"), strict=True):
        _draw_level(axes, level, now, before)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    return figure


def _draw_level(axes: Axes, level: str, now: Sequence[Mapping], before: Sequence[Mapping]) -> None:
    places = range(len(now))
    low, high = ([100 * row[f"{end}_{level}"] for row in now] for end in ("low", "high"))
    widths = [b - a for a, b in zip(low, high, strict=True)]
    axes.barh(places, widths, left=low, color=_TOLD, height=0.6, label="range that is told (90 %)")
    for rows, colour, mark, name in ((before, _BEFORE, "x", "covered, as it was"), (now, _NOW, "o", "covered, as it is")):
        axes.plot([100 * row[f"cover_{level}"] for row in rows], places, mark, color=colour, ms=5, label=name)
    axes.axvline(float(level), color=_NOMINAL, ls=":", label="nominal")
    axes.set(yticks=places, yticklabels=[row["scan"] for row in now], xlabel=f"unseen rays inside {level} % intervals (%)")
    axes.grid(axis="x", alpha=0.3)
