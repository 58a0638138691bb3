"""Detection curves and their areas, from the rows alone."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.engine.rows import Row, Rows

_WAYS = ("by difference", "by difference over its std")
_DRAWS = 1000


def roc(defects: NDArray, scores: NDArray) -> tuple[NDArray, NDArray, float]:
    """False and true alarms as the threshold falls, and the area under the curve (ties count half)."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits, alarms = (np.insert(np.cumsum(found[order])[ends] / max(found.sum(), 1), 0, 0.0) for found in (defects, ~defects))
    return alarms, hits, float(np.trapezoid(hits, alarms))


def areas(rows: list[Row]) -> NDArray[np.float64]:
    """Of both ways, and of the second less the first: (3, 2), the area and its standard error by a bootstrap over objects."""
    objects = [
        np.array([(r["defect"], *_scores(r)) for r in rows if (r["phantom"], r["seed"]) == one], dtype=float)
        for one in dict.fromkeys((r["phantom"], r["seed"]) for r in rows)
    ]

    def of(chosen: list[NDArray]) -> NDArray:
        sites = np.concatenate(chosen)
        first, second = (roc(sites[:, 0] > 0, sites[:, i])[2] for i in (1, 2))
        return np.array([first, second, second - first])

    rng = np.random.default_rng(0)
    drawn = np.array([of([objects[i] for i in rng.integers(len(objects), size=len(objects))]) for _ in range(_DRAWS)])
    return np.stack([of(objects), drawn.std(0, ddof=1)], 1)


def _scores(row: Row) -> tuple[float, float]:
    difference, std = abs(float(row["difference"])), float(row["std"])
    return difference, difference / max(std, 1e-300)


def _by_kind(table: Path) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in Rows(table).rows:
        found.setdefault(f"{row['kind']}, {float(row['depth']):.0%}", []).append(row)
    return found


def _facts(rows: list[Row], column: str) -> tuple[float, float]:
    """Mean over objects, and its standard error."""
    values = np.array(list({(r["phantom"], r["seed"]): float(r[column]) for r in rows}.values()))
    return float(values.mean()), float(values.std(ddof=1) / values.size**0.5) if values.size > 1 else float("nan")


def draw(table: Path) -> None:
    """Draw ``defects.png`` and ``.pdf`` beside the table."""
    found = _by_kind(table)
    if not found:
        return
    mpl.rcParams["pdf.fonttype"] = 42
    figure = Figure(figsize=(3.1 * len(found), 3.3), layout="constrained")
    for axes, (kind, rows) in zip(np.atleast_1d(figure.subplots(1, len(found), sharey=True)), found.items(), strict=True):
        defects = np.array([float(r["defect"]) > 0 for r in rows])
        for i, way in enumerate(_WAYS):
            alarms, hits, area = roc(defects, np.array([_scores(r)[i] for r in rows]))
            axes.plot(alarms, hits, label=f"{way}: {area:.2f}", linewidth=1.5)
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.7)
        axes.set(title=kind, xlabel="share of sound sites that alarm")
        axes.legend(fontsize=7, loc="lower right")
    figure.axes[0].set_ylabel("share of defects found")
    for ending in ("png", "pdf"):
        figure.savefig(table.with_suffix(f".{ending}"), dpi=200)


def table_of(table: Path) -> str:
    """Markdown, a line for each kind."""
    lines = [
        "| kind, depth | objects, sites | AUC | AUC over std | gain | rank correlation | AUSE |",
        "|" + "---|" * 7,
    ]
    for kind, rows in _by_kind(table).items():
        told = [f"{value:.3f} ± {error:.3f}" for value, error in areas(rows)]
        told += ["{:.2f} ± {:.2f}".format(*_facts(rows, column)) for column in ("rank_correlation", "ause")]
        objects = len({(r["phantom"], r["seed"]) for r in rows})
        lines.append(f"| {kind} | {objects}, {len(rows)} | {' | '.join(told)} |")
    return "\n".join(lines).replace(" ± nan", "")
