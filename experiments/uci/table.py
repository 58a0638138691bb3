"""Table and figure of all finished runs."""

import csv
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

PEER = "gpytorch"
_COLOURS = {
    "auto": "#7c3aed",
    "cholesky": "#111827",
    "cg": "#1d4ed8",
    "blocks": "#0891b2",
    "sdd": "#047857",
    "sgd": "#c2410c",
    "inducing": "#a16207",
    "gpytorch": "#9ca3af",
    "gpytorch_tight": "#f472b6",
}

_FAR = 3.0
"""Nats at which the axis of the figure ends."""

Row = dict[str, str | float]


def write_table(store: Path, out: Path) -> list[Row]:
    """One row for each set and solver, splits pooled; written as CSV and returned.

    NLL are those of the test points at which the peer has a deviation, the same for all solvers; ``_all`` of all test points.
    Differences are paired by test point, solver minus peer, with the standard error of their mean; that of RMSE is split among
    test points in proportion to their differences of squares.
    """
    runs: dict[tuple[str, str], list[dict[str, np.ndarray]]] = defaultdict(list)
    for path in sorted(store.glob("*-*-*.npz")):
        name, split, solver = path.stem.rsplit("-", 2)
        runs[name, solver].append(dict(np.load(path)) | {"split": np.array(int(split))})
    rows = [_row(name, solver, found, runs.get((name, PEER), [])) for (name, solver), found in runs.items()]
    rows.sort(key=lambda row: (row["n"], row["set"], list(_COLOURS).index(str(row["solver"]))))
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.5g}" if isinstance(value, float) else value for key, value in row.items()})
    return rows


def _row(name: str, solver: str, found: list[dict[str, np.ndarray]], peers: list[dict[str, np.ndarray]]) -> Row:
    by_split = {int(peer["split"]): peer for peer in peers}
    pairs = [(run, by_split[int(run["split"])]) for run in found if int(run["split"]) in by_split]
    count = min((len(peer["nll"]) for peer in peers), default=None)
    square, rmse = np.concatenate([run["error"] ** 2 for run in found]), _rms(found)
    nll = np.concatenate([run["nll"][:count] for run in found])
    row: Row = {"set": name, "n": int(found[0]["n"]), "inputs": int(found[0]["inputs"]), "solver": solver, "splits": len(found)}
    row |= {"rmse": rmse, "rmse_se": _error(square) / (2 * rmse), "nll": float(nll.mean()), "nll_se": _error(nll)}
    row["nll_all"] = float(np.concatenate([run["nll"] for run in found]).mean())
    total = sum(_rms([pair[side] for pair in pairs]) for side in (0, 1)) if pairs else math.nan
    row |= _paired("rmse", [(run["error"] ** 2 - peer["error"] ** 2) / total for run, peer in pairs])
    row |= _paired("nll", [run["nll"][:count] - peer["nll"][:count] for run, peer in pairs])
    row |= {key: float(np.mean([run[key] for run in found])) for key in ("seconds", "cpu_seconds", "residual")}
    for key in ("seconds", "cpu_seconds"):
        peer = float(np.mean([peer[key] for _, peer in pairs])) if pairs else math.nan
        row[f"{key}_over_peer"] = float(row[key]) / peer
    return row | {"note": str(found[0]["note"])}


def _rms(runs: list[dict[str, np.ndarray]]) -> float:
    return math.sqrt(float(np.mean(np.concatenate([run["error"] for run in runs]) ** 2)))


def _paired(what: str, parts: list[np.ndarray]) -> Row:
    values = np.concatenate(parts) if parts else np.array([math.nan])
    return {f"{what}_minus_peer": float(values.mean()), f"{what}_minus_peer_se": _error(values)}


def _error(values: np.ndarray) -> float:
    return float(values.std() / math.sqrt(len(values)))


def write_figure(rows: list[Row], out: Path) -> None:
    """RMSE, NLL and CPU time of each solver on each set; what is off the NLL axis is an arrow with its value."""
    sets = list(dict.fromkeys(str(row["set"]) for row in rows))
    figure = Figure(figsize=(11, 1.6 + 0.55 * len(sets)), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    solvers = [solver for solver in _COLOURS if any(row["solver"] == solver for row in rows)]
    for place, solver in enumerate(solvers):
        own = [row for row in rows if row["solver"] == solver]
        heights = [sets.index(str(row["set"])) + 0.7 * (place / max(1, len(solvers) - 1) - 0.5) for row in own]
        for axes, key in zip(panels, ("rmse", "nll", "cpu_seconds"), strict=True):
            near = [(row, height) for row, height in zip(own, heights, strict=True) if key != "nll" or float(row[key]) < _FAR]
            values = [row[key] for row, _ in near]
            errors = None if key == "cpu_seconds" else [row[f"{key}_se"] for row, _ in near]
            spots = [height for _, height in near]
            axes.errorbar(values, spots, xerr=errors, fmt="o", ms=4, color=_COLOURS[solver], label=solver)
        for row, height in zip(own, heights, strict=True):
            if float(row["nll"]) >= _FAR:
                style = {"arrowstyle": "->", "color": _COLOURS[solver]}
                told = f"{float(row['nll']):,.4g}"
                panels[1].annotate(
                    told,
                    (_FAR, height),
                    (_FAR - 0.6, height),
                    arrowprops=style,
                    color=_COLOURS[solver],
                    va="center",
                    ha="right",
                )
    panels[0].set(yticks=range(len(sets)), yticklabels=[f"{s} ({_size(rows, s):,})" for s in sets], xscale="log", xlabel="RMSE")
    panels[1].set(xlabel="negative log-likelihood (nats)", xlim=(None, _FAR))
    panels[2].set(xlabel="CPU time, one thread (s)", xscale="log")
    for axes in panels:
        axes.grid(alpha=0.3, axis="x")
        for line in range(1, len(sets)):
            axes.axhline(line - 0.5, color="#d1d5db", lw=0.8)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=9, frameon=False)
    figure.savefig(out, dpi=150)


def _size(rows: list[Row], name: str) -> int:
    return next(int(row["n"]) for row in rows if row["set"] == name)
