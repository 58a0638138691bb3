"""Figure and table of the glyphs, from their rows alone: means over images with their standard errors."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.engine.rows import Row, Rows

_PANELS = (
    ("psnr", "PSNR (dB)"),
    ("log_likelihood_object", "log-likelihood (nats a pixel of the object)"),
    ("cover_95_object", "share of the object in 95 % intervals"),
)
_DEEP = 8.0
"""Nats below the best that are shown: one standard deviation for all pixels is far below from few views."""
_PATCHES = ("patch_1", "patch_2", "patch_4", "patch_7", "patch_14", "full")


def mean_of(rows: list[Row], column: str) -> tuple[float, float]:
    """Mean and its standard error; NaN for a single row."""
    values = np.array([float(row[column]) for row in rows])
    return float(values.mean()), float(values.std(ddof=1) / values.size**0.5) if values.size > 1 else float("nan")


def draw(table: Path) -> None:
    """Draw ``glyphs.png`` and ``.pdf`` beside the table: scores by the number of angles, a row for each set and noise."""
    rows = Rows(table).rows
    if not rows:
        return
    cases = sorted({(str(row["set"]), float(row["noise"])) for row in rows})
    kinds = list(dict.fromkeys(str(row["kind"]) for row in rows))
    mpl.rcParams["pdf.fonttype"] = 42
    figure = Figure(figsize=(13, 3.2 * len(cases)), layout="constrained")
    grid = figure.subplots(len(cases), len(_PANELS) + 1, squeeze=False)
    for line, (name, noise) in zip(grid, cases, strict=True):
        here = [row for row in rows if row["set"] == name and float(row["noise"]) == noise]
        most = max(int(row["angles"]) for row in here)
        for i, kind in enumerate(kinds):
            own = [row for row in here if row["kind"] == kind]
            look = {"color": f"C{i % 10}", "marker": "o" if i < 10 else "s", "markersize": 3, "linewidth": 1, "label": kind}
            for axes, (column, _) in zip(line, _PANELS, strict=False):
                counts = sorted({int(row["angles"]) for row in own})
                points = [mean_of([row for row in own if row["angles"] == n], column) for n in counts]
                if points:
                    axes.errorbar(counts, *zip(*points, strict=True), capsize=2, **look)
            full = [row for row in own if row["angles"] == most]
            if full:
                names = [p.removeprefix("patch_") for p in _PATCHES]
                line[-1].plot(names, [mean_of(full, f"log_likelihood_{p}")[0] for p in _PATCHES], **look)
        for axes, (column, label) in zip(line, _PANELS, strict=False):
            axes.set(xlabel="angles", ylabel=label)
            if column.startswith("log_likelihood"):
                lowest, highest = axes.get_ylim()
                axes.set_ylim(max(lowest, highest - _DEEP), highest)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        line[-1].set(xlabel=f"patch (pixels), {most} angles", ylabel="log-likelihood (nats a pixel)")
        line[0].set_title(f"{name}, {noise:.0%} noise", fontsize=9)
    handles = {label: handle for axes in grid[:, -1] for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize=8)
    for ending in ("png", "pdf"):
        figure.savefig(table.with_suffix(f".{ending}"), dpi=200)


def table_of(table: Path) -> str:
    """Markdown of all cases."""
    rows = Rows(table).rows
    lines = [
        "| set, noise, angles | kind | images | PSNR | nats a pixel of the object | 1000 CRPS | 68 / 95 % | s |",
        "|" + "---|" * 8,
    ]
    cases = dict.fromkeys((row["set"], row["noise"], row["angles"], row["kind"]) for row in rows)
    for case in sorted(cases, key=str):
        own = [row for row in rows if (row["set"], row["noise"], row["angles"], row["kind"]) == case]
        told = [
            "{:.1f} ± {:.1f}".format(*mean_of(own, "psnr")),
            "{:.2f} ± {:.2f}".format(*mean_of(own, "log_likelihood_object")),
        ]
        told += [f"{1000 * mean_of(own, 'crps_object')[0]:.2f}"]
        told += [f"{100 * mean_of(own, 'cover_68_object')[0]:.0f} / {100 * mean_of(own, 'cover_95_object')[0]:.0f}"]
        name, noise, angles, kind = case
        where = f"{name}, {float(noise):.0%}, {angles}"
        lines.append(f"| {where} | {kind} | {len(own)} | {' | '.join(told)} | {mean_of(own, 'seconds')[0]:.1f} |")
    return "\n".join(lines).replace(" ± nan", "")
