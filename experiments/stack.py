"""A stack of a real parallel scan: every second view reconstructed, the others score the error bars of each slice.

``python -m experiments.stack SCAN --geometry FILE.yaml --slices 51:83 --size 128``; one row a slice goes to
``figures/stack.csv``, or ``stack_tv.csv`` with ``--method tv``. Run again with the same ``--folder``, it goes on.
"""

import csv
import os
import time
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from tyro.conf import Positional

import ctuq
from ctuq import files
from ctuq.app.progress import TerminalBar, told_about
from ctuq.app.typed import steps
from ctuq.pipeline import reconstruct_stack
from ctuq.scale import cluster
from ctuq.uncertainty.results.volume import VolumeResult
from experiments import FIGURES


def main(
    scan: Positional[Path],
    geometry: Path | None = None,
    slices: str = "51:83",
    size: int = 128,
    step: int = 2,
    method: Literal["dip", "tv"] = "dip",
    workers: int | None = None,
    folder: Path = Path("stack"),
) -> None:
    """Reconstruct, score and record."""
    whole = files.read_volume(scan, geometry=geometry)
    rows = steps(slices, "--slices", whole.geometry.rows)
    every = np.arange(whole.n_angles)
    used = every[::step]
    options = ctuq.ReconstructOptions(method=method, size=size)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter(), sum(os.times()[:4])
    with told_about(False), TerminalBar() as bar, cluster(workers) as executor:
        result = reconstruct_stack(
            whole.select(used),
            rows=rows,
            judge=whole.select(np.setdiff1d(every, used)),
            options=options,
            executor=executor,
            progress=bar,
            checkpoint=folder / "checkpoint.h5",
            output=folder / "results.h5",
        )
    took = time.perf_counter() - began[0], sum(os.times()[:4]) - began[1]
    _record(result, rows, size, took)


def _record(result: VolumeResult, rows: range, size: int, took: tuple[float, float]) -> None:
    table = {name: column for name, column in result.slices.items() if column.size}
    name = "stack.csv" if result.method == "dip" else f"stack_{result.method}.csv"
    with (FIGURES / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slice", "size", *table])
        writer.writerows([row, size, *(f"{column[i]:.5g}" for column in table.values())] for i, row in enumerate(rows))
    z = table["judged_rms_z"]
    print(f"{took[0] / 60:.1f} min, {took[1]:.0f} CPU s (of this call and process) for {len(rows)} slices at {size}.")
    print(f"Unseen views: rms z {np.sqrt(np.nanmean(z**2)):.3f}, of single slices {np.nanmin(z):.3f} to {np.nanmax(z):.3f}.")
    for name in ("held_out_rms_z", "judged_cover_68", "judged_cover_95", "iterations", "warm", "learned_anew", "failed"):
        if name in table:
            print(f"{name:>18} {np.nanmean(table[name]):.4g}")
    for text in result.warnings:
        print(f"Warning: {text}")


if __name__ == "__main__":
    tyro.cli(main)
