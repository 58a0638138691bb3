"""Volumes by every method: processor seconds, views that were held out, and the truth.

``python -m experiments.volume_methods --sizes 24 40``: the phantom ``shells`` seen by a cone in 30 views with 5 % noise; three
of them are held out of all methods alike. ``figures/volume_methods.csv`` has a row for each size and method: "unseen" is the
rms residual of the held-out views over that of an empty volume, "noise" what the noise alone would leave of it.
"""

import csv
import time
from dataclasses import dataclass

import numpy as np
import torch
import tyro

from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.volume.job import reconstruct_volume
from ctuq.recon.holdout import views_to_hold
from ctuq.tomo.rays.volume import volume_transform
from ctuq.tomo.solids import solid_scan
from ctuq.tomo.volume_scan import VolumeScan
from experiments import FIGURES

_OUTPUT = FIGURES / "volume_methods.csv"
_NOISE = 0.05


@dataclass(frozen=True)
class Options:
    """What is measured."""

    sizes: tuple[int, ...] = (24, 40)
    views: int = 30
    methods: tuple[str, ...] = ("fdk", "sirt", "cgls", "tv", "dip")


def row_of(scan: VolumeScan, size: int, method: str) -> dict[str, float | str]:
    """One method on the views that are not held out."""
    held, _ = views_to_hold(scan, None)
    fitted = scan if method == "dip" else scan.select(np.setdiff1d(np.arange(scan.n_angles), held))
    begun = time.process_time()
    result = reconstruct_volume(fitted, options=VolumeOptions(method, size, threads=1))
    seconds = time.process_time() - begun
    unseen = scan.select(held)
    shown = volume_transform(result.grid, unseen.geometry)(torch.from_numpy(result.mean)).numpy()
    size_of = np.sqrt(np.mean(unseen.projections**2))
    iterations = int(result.history["iteration"][-1]) if method == "dip" else result.settings.get("iterations", 1)
    return {
        "size": size,
        "method": method,
        "seconds": round(seconds, 1),
        "iterations": iterations,
        "unseen": round(float(np.sqrt(np.mean((shown - unseen.projections) ** 2)) / size_of), 4),
        "noise": round(float(_NOISE * scan.projections.mean() / size_of), 4),
        "psnr": round(result.scores["psnr"], 2),
    }


def main(options: Options) -> None:
    """Write the table, a row as soon as it is known; rows of other sizes and methods stay."""
    torch.set_num_threads(1)
    rows = {}
    if _OUTPUT.is_file():
        with _OUTPUT.open() as file:
            rows = {(row["size"], row["method"]): row for row in csv.DictReader(file)}
    for size in options.sizes:
        angles = np.arange(options.views) * 2 * np.pi / options.views
        scan = solid_scan("shells", size, angles, noise=_NOISE, seed=0, distances=(100.0, 200.0))
        for method in options.methods:
            row = row_of(scan, size, method)
            print(row, flush=True)
            rows[str(size), method] = row
            with _OUTPUT.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
                writer.writerows(rows.values())


if __name__ == "__main__":
    main(tyro.cli(Options))
