"""Cost of a design against the problem's size: CPU seconds to learn a model, to choose an angle, and to take a view in.

``python -m experiments.angle_design.cost --sizes 16 24 32 48`` writes ``figures/angle_design_cost.csv`` and ``.png``; rows of
other sizes and priors that are in the table stay.
"""

import csv
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure

from ctuq.app.trials.subjects import phantom_subject
from ctuq.design.trials.contenders import TrialPlan
from experiments import FIGURES
from experiments.angle_design.output import write
from experiments.angle_design.rectangles import contenders

COLUMNS = ("prior", "criterion", "pixels", "candidates", "rays a view", "learn (s)", "choose (s)", "take in (s)")
STEM = FIGURES / "angle_design_cost"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of the measurement."""

    sizes: tuple[int, ...] = (16, 24, 32, 48)
    """Pixels along x and y."""
    candidates: int = 60
    views: int = 5
    """Chosen after the 5 pilot views."""
    strategies: tuple[str, ...] = ("eig matern", "a edges", "eig lindip")
    iterations: int = 1500
    """Of the network's fit, which is part of learning."""


def measure(size: int, options: Options) -> list[dict[str, str]]:
    """One row for each strategy, on one thread."""
    subject = phantom_subject("rectangles", size, options.candidates, noise=0.05, seed=0)
    rows = []
    for strategy in contenders(options.strategies, 0, options.iterations)[3:]:
        chosen = strategy.choose(subject, TrialPlan(5, 5 + options.views))
        criterion, prior = strategy.name.split(" ", 1)
        seconds = (chosen.learn[0], np.median(chosen.ask), np.median(chosen.learn[1:]))
        sizes = (size**2, options.candidates, subject.y.shape[1])
        rows.append(dict(zip(COLUMNS, (prior, criterion, *map(str, sizes), *(f"{s:.4g}" for s in seconds)), strict=True)))
        print(rows[-1], flush=True)
    return rows


def draw(rows: list[dict[str, str]]) -> Figure:
    """Seconds against pixels, both logarithmic."""
    figure = Figure(figsize=(11.5, 4.0), layout="constrained")
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    sizes = sorted({int(row["pixels"]) for row in rows})
    for axes, column in zip(panels, COLUMNS[-3:], strict=True):
        for name in dict.fromkeys((row["criterion"], row["prior"]) for row in rows):
            own = [row for row in rows if (row["criterion"], row["prior"]) == name]
            pixels, seconds = ([float(row[c]) for row in own] for c in ("pixels", column))
            axes.plot(pixels, seconds, "o-", label=" ".join(name))
        axes.set(xscale="log", yscale="log", xlabel="pixels", title=column.removesuffix(" (s)"))
        axes.set_xticks(sizes, [f"{round(n**0.5)}²" for n in sizes])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("CPU time on one thread (s)")
    panels[0].legend(frameon=False)
    return figure


def main(options: Options) -> None:
    torch.set_num_threads(1)
    rows, table = [], STEM.with_suffix(".csv")
    if table.is_file():
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
    for size in options.sizes:
        new = measure(size, options)
        keys = [(row["prior"], row["criterion"], row["pixels"]) for row in new]
        rows = [row for row in rows if (row["prior"], row["criterion"], row["pixels"]) not in keys] + new
        rows.sort(key=lambda row: (row["prior"], row["criterion"], int(row["pixels"])))
        write(STEM, COLUMNS, rows, draw(rows))


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
