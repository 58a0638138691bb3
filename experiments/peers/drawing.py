"""The figure of the peers and the table of ``docs/peers.md``, from their rows alone."""

import csv
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_COLUMNS = {
    "log_likelihood": "log-likelihood of an unseen ray (nats)",
    "truth_crps_object": "CRPS of an object's pixel (1/mm)",
}


def draw(table: Path) -> None:
    """Draw ``peers.png`` and ``.pdf`` beside the table: one point a method, means over seeds with their standard errors.

    Parameters
    ----------
    table : path
    """
    rows = _rows(table)
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    panels = [(problem, "log_likelihood" if problem in ("walnut", "ta") else "truth_crps_object") for problem in problems]
    mpl.rcParams["pdf.fonttype"] = 42
    figure = Figure(figsize=(3.6 * len(panels), 0.8 + 0.24 * len({row["method"] for row in rows})), layout="constrained")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for axes, (problem, column) in zip(np.atleast_1d(figure.subplots(1, len(panels), sharey=True)), panels, strict=True):
        for place, method in enumerate(methods):
            found = [row for row in rows if row["problem"] == problem and row["method"] == method]
            values = np.array([float(row[column]) for row in found])
            if not values.size:
                continue
            error = values.std(ddof=1) / values.size**0.5 if values.size > 1 else 0.0
            colour = "C1" if "CUQIpy" in method or "svmbir" in method else "C0"
            axes.errorbar(values.mean(), place, xerr=error, fmt="o", color=colour, capsize=2, markersize=4)
            most = len({row["seed"] for row in rows if row["problem"] == problem})
            told = f"{np.mean([float(row['seconds']) for row in found]):.0f} s"
            told += f", {len(found)} of {most} seeds" * (len(found) < most)
            axes.annotate(told, (values.mean(), place), xytext=(0, 5), textcoords="offset points", fontsize=7, ha="center")
        axes.set_title(problem, fontsize=9)
        axes.set_xlabel(_COLUMNS[column], fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_yticks(range(len(methods)), methods, fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="x", linewidth=0.3)
        axes.margins(x=0.15, y=0.1)
    for ending in ("png", "pdf"):
        figure.savefig(table.with_suffix(f".{ending}"), dpi=200)


def table_of(table: Path) -> str:
    """Means over seeds, methods in the order of the walnut's log-likelihood, with its standard error.

    Parameters
    ----------
    table : path
    """
    rows = _rows(table)

    def values(method: str, problem: str, column: str) -> np.ndarray:
        found = [row for row in rows if (row["method"], row["problem"]) == (method, problem)]
        return np.array([float(row.get(column) or "nan") for row in found])

    def cell(method: str, problem: str, *columns: tuple[str, float, str]) -> str:
        found = [scale * values(method, problem, column) for column, scale, _ in columns]
        if not found[0].size:
            return "not run"
        return ", ".join(f"{value.mean():{form}}" for value, (*_, form) in zip(found, columns, strict=True))

    def order(method: str) -> float:
        found = values(method, "walnut", "log_likelihood")
        return -found.mean() if found.size else np.inf

    lines = [
        "| image and error bars | seeds | walnut: nats a ray | 68 / 95 % | rms error | CPU s | ta: nats a ray | "
        "glyph: 1000 CRPS, PSNR, 95 % | rectangles: 1000 CRPS, PSNR, 95 % |",
        "|---|" + 8 * "---|",
    ]
    of_object = (("truth_crps_object", 1e3, ".2f"), ("truth_psnr", 1, ".1f"), ("truth_cover_95_object", 1e2, ".0f"))
    for method in sorted(dict.fromkeys(row["method"] for row in rows), key=order):
        nats = values(method, "walnut", "log_likelihood")
        error = f" ± {nats.std(ddof=1) / nats.size**0.5:.3f}" if nats.size > 1 else ""
        cells = [method, str(nats.size), cell(method, "walnut", ("log_likelihood", 1, ".3f")) + error]
        cells += [cell(method, "walnut", ("cover_68", 1e2, ".0f"), ("cover_95", 1e2, ".0f"))]
        cells += [cell(method, "walnut", (name, 1, form)) for name, form in (("rmse", ".4f"), ("seconds", ".0f"))]
        cells += [cell(method, "ta", ("log_likelihood", 1, ".3f"))]
        cells += [cell(method, problem, *of_object) for problem in ("glyph", "rectangles")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))
