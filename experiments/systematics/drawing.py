"""Pictures of the tables: which intervals held, what real discs are covered by, and what taking errors out is worth."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.systematics.scans import DEFECTS, LEVELS


def draw(rows: Sequence[Mapping[str, str]]) -> Figure:
    """Left: how many of a defect's values their 95 % intervals hold; right: of the real discs' pixels those of the image."""
    figure = Figure(figsize=(10.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for shift, level in enumerate(LEVELS):
        held = [_mean(rows, defect, level) for defect in DEFECTS]
        left.bar(np.arange(len(DEFECTS)) + 0.27 * (shift - 1), held, 0.25, label=f"{level} × noise")
    left.set_xticks(range(len(DEFECTS)), DEFECTS)
    left.set_ylabel("true values in 95 % intervals (%)")
    left.axhline(95, color="black", linewidth=0.8)
    left.legend(loc="lower right")
    real = [row for row in rows if row["middle"]]
    scans = sorted({row["scan"] for row in real})
    blocks = list(dict.fromkeys(row["blocks"] for row in real))
    for shift, scan in enumerate(scans):
        by = {row["blocks"]: 100 * float(row["cover_95"]) for row in real if row["scan"] == scan}
        right.bar(np.arange(len(blocks)) + 0.4 * shift, [by.get(b, np.nan) for b in blocks], 0.38, label=scan)
    right.set_xticks(np.arange(len(blocks)) + 0.2, [b.replace(",", "\n") for b in blocks])
    right.set_ylabel("object's pixels in 95 % intervals (%)")
    right.axhline(95, color="black", linewidth=0.8)
    right.legend(loc="lower right")
    return figure


def draw_views(rows: Sequence[Mapping[str, str | float]]) -> Figure:
    """Of errors of single views: how many values their intervals hold, and the image's error after over before, each scan."""
    figure = Figure(figsize=(10.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    kinds = [(defect, level) for defect in ("flux", "jitter", "shift") for level in LEVELS]
    for place, (defect, level) in enumerate(kinds):
        here = [row for row in rows if row["defect"] == defect and float(row["level"]) == level]
        held = np.array([100 * float(row["held"]) for row in here])
        ratios = [float(row["corrected_rmse"]) / float(row["fit_rmse"]) for row in here]
        if len(here) > 1:
            left.errorbar(place, held.mean(), held.std(ddof=1) / len(held) ** 0.5, fmt="o", color="C0", capsize=3)
        right.plot(np.full(len(ratios), place), ratios, ".", color="C0", alpha=0.5)
        right.plot(place, np.median(ratios) if ratios else np.nan, "_", color="black", markersize=14)
    for axes in (left, right):
        axes.set_xticks(range(len(kinds)), [f"{defect}\n{level} ×" for defect, level in kinds])
    left.axhspan(90, 99, color="0.9", zorder=0)
    left.set_ylabel("true values in 95 % intervals (%)")
    right.axhline(1, color="black", linewidth=0.8)
    right.set_yscale("log")
    right.set_ylabel("image's error, after over before")
    return figure


def _mean(rows: Sequence[Mapping[str, str]], defect: str, level: int) -> float:
    found = [float(row["held"]) for row in rows if row["defect"] == defect and float(row["level"]) == level]
    return 100 * float(np.mean(found)) if found else np.nan
