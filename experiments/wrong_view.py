"""Scans of which one view is wrong: what it costs, and what weighing it by its own residual wins back.

``python -m experiments.wrong_view`` goes on where it stopped, writes ``figures/wrong_view.csv`` and prints the table of
``docs/how_it_works.md``; ``--no-run`` prints it from the file.
"""

from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import numpy as np
import tyro
from numpy.typing import NDArray

import ctuq
from ctuq.pipeline.image import job
from ctuq.pipeline.image.agreement import Agreement
from ctuq.recon.dip import Data
from ctuq.tomo.simulate import phantom_scan
from experiments import FIGURES
from experiments.engine.rows import Rows
from experiments.peers.problems import Problem, unseen_scores
from experiments.unseen_views import load

OUTPUT = FIGURES / "wrong_view.csv"
_VIEW = 7
# Shipped scan and every so many of its views; the others judge.
STEPS = {"walnut": 4, "ta": 8, "tooth": 6}
# Of this object the sides lie along the pixels' columns, as the first view does.
ALONG = "rectangles along the pixels"
_SIZE, _VIEWS = 48, 20


def _moved(view: NDArray) -> NDArray:
    return np.roll(view, len(view) // 25)


WRONG: dict[str, Callable[[NDArray, NDArray], NDArray]] = {
    "nothing": lambda view, other: view,
    "moved by 4 % of the detector": lambda view, other: _moved(view),
    "of an angle three views on": lambda view, other: other,
    "mirrored": lambda view, other: view[::-1],
    "1.3 times as much": lambda view, other: 1.3 * view,
    "moved, and held out": lambda view, other: _moved(view),
}


def problem(name: str, wrong: str) -> Problem:
    """A scan with its view, and the other views of the object."""
    if name == ALONG:
        full = phantom_scan("rectangles", 40, np.arange(3 * _VIEWS) * np.pi / (3 * _VIEWS), noise=0.05, seed=1)
        return Problem.of(name, 40, full, np.arange(0, full.n_angles, 3))
    full = load(name)
    given = Problem.of(name, _SIZE, full, np.arange(0, full.n_angles, STEPS[name]))
    y = given.scan.projections.copy()
    view = int(given.held[0]) if "held out" in wrong else _VIEW
    y[view] = WRONG[wrong](y[view].copy(), y[view + 3].copy())
    return replace(given, scan=replace(given.scan, projections=y))


def _all_alike(run: object, data: Data, own: object) -> Agreement:
    return Agreement(np.ones(len(data.y)), np.zeros(len(data.y)))


def measure(given: Problem, weighed: bool) -> dict[str, float]:
    """Scores of unseen rays, and of the object where it is known."""
    with mock.patch.object(job, "kept_agreement", job.kept_agreement if weighed else _all_alike):
        result = ctuq.reconstruct(given.scan, size=given.size, samples=256)
    row = unseen_scores(given, result, ("psnr", "cover_95_object"))
    return row | {"told": float(any("far from the image" in text for text in result.warnings))}


def main(run: bool = True) -> None:
    """Measure what is not there yet, and print the table."""
    kept = Rows(OUTPUT)
    for name, wrong in [(ALONG, "nothing"), *((name, wrong) for name in STEPS for wrong in WRONG)] if run else ():
        for weighed in (False, True):
            told = {"scan": name, "wrong": wrong, "weighed": "yes" if weighed else "no"}
            if not kept.where(**told):
                kept.add([told | measure(problem(name, wrong), weighed)])
                print(kept.rows[-1], flush=True)
    print(table(kept))


def table(kept: Rows) -> str:
    """Unseen rays, all views alike and with what disagrees weighed."""
    lines = [
        "| scan | view that is wrong | found | rms error of unseen rays | nats a ray | 95 % hold |",
        "|---|---|---|---|---|---|",
    ]
    for row in kept.where(weighed="no"):
        after = kept.where(weighed="yes", scan=row["scan"], wrong=row["wrong"])
        if not after:
            continue
        pairs = [(float(row[key]), float(after[0][key])) for key in ("rmse", "log_likelihood", "cover_95")]
        (e, f), (p, q), (c, d) = pairs
        found = "yes" if float(after[0]["told"]) else "no"
        cells = f"{e:.4f} → {f:.4f} | {p:.2f} → {q:.2f} | {100 * c:.0f} → {100 * d:.0f} %"
        lines.append(f"| {row['scan']} | {row['wrong']} | {found} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
