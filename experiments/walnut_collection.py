"""A slice of the walnut collection (Der Sarkissian et al. 2019): ``python -m experiments.walnut_collection FOLDER``.

FOLDER is one orbit as published, ``Walnut1/Projections/tubeV2``: the middle one, whose source is level with the slice. Of its
1,200 views 120 (or ``--views 60``) make an image of 501 x 501 pixels of 0.1 mm, and the others score the error bars; a row goes
to ``figures/walnut_collection.csv``. Nobody of us has the files: the reader is tested on a folder of their layout.
"""

import csv
import time
from pathlib import Path

import numpy as np
import tyro
from tyro.conf import Positional

import ctuq
from ctuq.pipeline import match_detector
from ctuq.scores.gaussian import gaussian_scores
from ctuq.uncertainty.results.unseen_views import predict_views
from experiments import FIGURES

_FIELD = 50.1
_SCORED = 120


def main(folder: Positional[Path], views: int = 120, size: int = 501, field: float = _FIELD, samples: int = 256) -> None:
    """Reconstruct a few views, and score the error bars on others.

    Parameters
    ----------
    folder
        With ``scan_*.tif`` and ``scan_geom_corrected.geom``.
    views
        Spread evenly over the turn.
    size
        Pixels of a side.
    field
        What they span, mm.
    samples
        To predict the other views by.
    """
    scan = ctuq.read(folder)
    every = np.arange(scan.n_angles)
    used = np.linspace(0, scan.n_angles, min(views, scan.n_angles // 2), endpoint=False).astype(int)
    rest = np.setdiff1d(every, used)
    rest = rest[np.linspace(0, len(rest) - 1, min(_SCORED, len(rest))).round().astype(int)]
    began = time.perf_counter()
    result = ctuq.reconstruct(scan.select(used), size=size, field=field, samples=samples)
    took = time.perf_counter() - began
    others = match_detector(scan.select(rest), result.grid)
    mean, variance = predict_views(result, ctuq.ray_transform(result.grid, others.geometry, backend="matrix"), others.weights)
    row = {"folder": folder.name, "views": len(used), "size": size, "seconds": took}
    row |= gaussian_scores(others.projections - mean, variance)
    path = FIGURES / "walnut_collection.csv"
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
    for key, value in row.items():
        print(f"{key:>16} {value:.4g}" if isinstance(value, float) else f"{key:>16} {value}")


if __name__ == "__main__":
    tyro.cli(main)
