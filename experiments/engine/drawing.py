"""Pictures of methods: scores of turned images, joint predictions, and what a precision does."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.engine.methods import COLOURS
from experiments.engine.rows import Row, Rows

_SCORES = {"log_likelihood": "log likelihood (nats)", "ece": "calibration error", "auroc": "AUROC of entropy, turned or not"}


def mean_of(rows: Sequence[Row], key: str) -> float:
    """Mean of a column."""
    return float(np.mean([float(row[key]) for row in rows]))


def draw_methods(table: Rows, sweeps: Rows) -> Figure:
    """Scores against the angle, joint log likelihood against kappa, log likelihood against the precision."""
    figure = Figure(figsize=(13, 7.4), layout="constrained")
    top, bottom = figure.subplots(2, 3)
    names = [name for name in COLOURS if table.where(method=name)]
    angles = sorted({float(row["angle"]) for row in table.rows})
    for axes, (key, label) in zip([*top], _SCORES.items(), strict=True):
        for name in names:
            values = [mean_of(table.where(method=name, angle=angle), key) for angle in angles]
            axes.plot(angles, values, color=COLOURS[name], marker=".", label=name)
        axes.set(xlabel="degrees turned", title=label)
    _bars(bottom[0], table, names)
    for name in names:
        rows = table.where(method=name, angle=0)
        kappas = [1, 2, 3, 4, 5]
        values = [mean_of(rows, "log_likelihood" if k == 1 else f"joint_{k}") for k in kappas]
        bottom[1].plot(kappas, values, color=COLOURS[name], marker=".")
    bottom[1].set(title="joint log likelihood / weight, upright", xlabel="kappa, data together", xticks=[1, 2, 3, 4, 5])
    _sweep(bottom[2], sweeps)
    for axes in (*top, bottom[1], bottom[2]):
        axes.grid(alpha=0.3)
    figure.legend(*top[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)
    return figure


def _bars(axes: Axes, table: Rows, names: list[str]) -> None:
    """Upright log likelihood, every seed a point."""
    for place, name in enumerate(names):
        values = [float(row["log_likelihood"]) for row in table.where(method=name, angle=0)]
        axes.plot(values, [place] * len(values), "o", color=COLOURS[name])
    axes.set(yticks=range(len(names)), yticklabels=names, title="log likelihood, upright, each seed")
    axes.invert_yaxis()
    axes.grid(alpha=0.3)


def _sweep(axes: Axes, sweeps: Rows) -> None:
    """Held-out log likelihood against the precision, the evidence's choice at 1."""
    styles = {"g": "-", "shared": "--"}
    for prior, seed in sorted({(str(row["prior"]), int(row["seed"])) for row in sweeps.rows}):
        rows = sorted(sweeps.where(prior=prior, seed=seed), key=lambda row: float(row["log_factor"]))
        factors = np.exp([-float(row["log_factor"]) for row in rows])
        values = [float(row["held_out_log_likelihood"]) for row in rows]
        axes.plot(factors, values, styles.get(prior, ":"), color=f"C{seed}", label=f"{prior} prior, seed {seed}")
    axes.axvline(1, color="#111827", lw=0.8)
    axes.set(xscale="log", xlabel="precision / that of the evidence", title="held-out log likelihood")
    axes.legend(frameon=False, fontsize=8)
