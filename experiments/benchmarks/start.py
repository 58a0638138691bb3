"""What the educated start is worth: ``python -m experiments.benchmarks.start`` fits the shipped scans from both starts.

For each scan and size: iterations and CPU seconds (one thread, both starts in turn in one run) to the held-out misfit that the
random start ends with, and the misfits at the end, relative to nothing. Arcs of HTC scans show what a missing wedge does.
Written to ``figures/start.csv``, where rows of other scans, sizes and starts stay.
"""

import csv
import io
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import tyro

import ctuq
from ctuq import files
from ctuq.pipeline import choose_grid, match_detector
from ctuq.recon.dip import Data, DIPOptions, dip, generator
from ctuq.recon.holdout import choose_views, default_views
from ctuq.records import write_whole
from ctuq.tomo import ray_transform
from ctuq.tomo.resample import resample
from experiments import FIGURES, ROOT

_TABLE = FIGURES / "start.csv"
_COLUMNS = (
    "scan",
    "views",
    "size",
    "start",
    "iterations",
    "cpu_seconds",
    "held_out_misfit",
    "iterations_to_random",
    "cpu_seconds_to_random",
    "truth_rmse",
    "restarts",
)


@dataclass(frozen=True)
class Options:
    """What to fit."""

    scans: tuple[str, ...] = ("walnut", "ta", "tb", "tooth", "ta arc 30", "tb arc 60", "tb arc 90")
    """Shipped scans, and arcs of them in degrees."""
    sizes: tuple[int, ...] = (64, 96)
    """Pixels along x and y."""
    starts: tuple[Literal["random", "educated"], ...] = ("random", "educated")
    """The random one first: the other is measured against its last misfit, or against the one in the table."""
    seed: int = 0
    """Of the random start."""


@dataclass(frozen=True)
class Run:
    """One fit: iteration, CPU seconds and best held-out misfit at each look."""

    looks: list[tuple[int, float, float]]
    rmse: float
    restarts: int

    def reached(self, misfit: float) -> tuple[int, float] | None:
        """Iterations and seconds to a misfit."""
        return next(((i, t) for i, t, m in self.looks if m <= misfit), None)


def load(name: str) -> ctuq.Scan:
    """About thirty views of a shipped scan, or of an arc of it."""
    if name == "walnut":
        return ctuq.read(files.demo_scan()).every(4)
    if name == "tooth":
        return ctuq.read(ROOT / "data" / "tooth" / "tooth.h5").every(6)
    which, *arc = name.split(" arc ")
    folder = ROOT / "data" / "htc2022"
    scan = ctuq.read(sorted(folder.glob(f"htc2022_{which}_*-*.mat")), truth=folder / f"htc2022_{which}_seg_gt.png")
    if not arc:
        return scan.every({"ta": 8, "tb": 12}[which])
    first, width = {"ta": 0.0, "tb": 75.0}[which], float(arc[0])
    degrees = np.rad2deg(scan.geometry.angles)
    chosen = np.flatnonzero((degrees >= first - 1e-6) & (degrees <= first + width + 1e-6))
    return scan.select(chosen[:: max(1, len(chosen) // 30)])


def fit(scan: ctuq.Scan, size: int, options: DIPOptions, seed: int) -> Run:
    grid = choose_grid(scan, size)
    binned = match_detector(scan, grid)
    A = ray_transform(grid, binned.geometry, backend="matrix")
    y = torch.tensor(binned.projections)
    weights = torch.ones_like(y) if binned.weights is None else torch.tensor(binned.weights)
    held = choose_views(scan.geometry.angles, default_views(scan.n_angles))[1]
    seen = np.setdiff1d(np.arange(scan.n_angles), held)
    fitted, stop = (Data(A.subset(v), y[v][None], weights[v][None]) for v in (seen, held))
    begun, looks, state = time.process_time(), [], None
    generate, start = generator(fitted, options, rng=torch.Generator().manual_seed(seed))
    for state in dip(generate, start, fitted, stop, options):
        looks.append((state.iteration, time.process_time() - begun, float(state.best_misfit / stop.size)))
    assert state is not None
    rmse = float("nan")
    if scan.truth is not None and scan.grid is not None:
        truth = resample(scan.truth, scan.grid, grid)
        image = generate(state.best)[0].detach().numpy()
        rmse = float(np.sqrt(np.mean((image - truth) ** 2)) / truth.max())
    return Run(looks, rmse, state.attempt)


def main(options: Options) -> None:
    torch.set_num_threads(1)
    rows = _read()
    for name in options.scans:
        scan = load(name)
        for size in options.sizes:
            for start in options.starts:
                run = fit(scan, size, DIPOptions(start=start), options.seed)
                iterations, seconds, misfit = run.looks[-1]
                values = (name, scan.n_angles, size, start, iterations, f"{seconds:.1f}", f"{misfit:.3e}")
                to_reach = rows.get((name, str(size), "random"), {}).get("held_out_misfit", f"{misfit:.3e}")
                first = run.reached(1.0005 * float(to_reach)) or ("", float("nan"))
                row = dict(zip(_COLUMNS, (*values, first[0], f"{first[1]:.1f}", f"{run.rmse:.4f}", run.restarts), strict=True))
                rows[name, str(size), start] = row
                print(*(f"{k} {v}" for k, v in row.items()), flush=True)
                _write(list(rows.values()))


def _read() -> dict[tuple[str, str, str], dict]:
    if not _TABLE.is_file():
        return {}
    with _TABLE.open(newline="") as file:
        return {(row["scan"], row["size"], row["start"]): row for row in csv.DictReader(file)}


def _write(rows: list[dict]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS)
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: (row["scan"], int(row["size"]), row["start"] != "random")))
    write_whole(_TABLE, lambda target: target.write(text.getvalue().encode()))


if __name__ == "__main__":
    main(tyro.cli(Options))
