"""Whether gains of detector columns that half of a real scan's views tell foretell the other half.

``python -m experiments.systematics.rings_unseen``: of each shipped scan every other view is used; an image by total variation,
as it is and freed of the gains, predicts the views between. Rows go to ``figures/systematics_rings_unseen.csv``.
"""

import csv

import numpy as np
import torch
import tyro

import ctuq
from ctuq.pipeline import choose_grid, match_detector
from ctuq.pipeline.image.rings import gains_of
from ctuq.recon import tv
from ctuq.recon.dip import Data
from ctuq.systematics.catalogue import STRONG
from experiments import FIGURES
from experiments.unseen_views import load

OUTPUT = FIGURES / "systematics_rings_unseen.csv"


def main(sizes: tuple[int, ...] = (64, 128)) -> None:
    """Print and write a line for each scan and size."""
    rows = [row(name, size) for name in ("tooth", "walnut", "ta", "tb") for size in sizes]
    with OUTPUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def row(name: str, size: int) -> dict[str, str]:
    """Log odds of gains, their rms, and the rms error of the unseen rays without and with them."""
    scan = load(name)
    grid = choose_grid(scan, size)
    scan = match_detector(scan, grid)
    seen, unseen = (scan.select(np.arange(first, scan.n_angles, 2)) for first in (0, 1))
    A, B = (ctuq.ray_transform(grid, part.geometry, backend="matrix") for part in (seen, unseen))
    y, between = torch.tensor(seen.projections), torch.tensor(unseen.projections)
    weights = torch.ones_like(y) if seen.weights is None else torch.tensor(seen.weights)
    gains = gains_of(Data(A, y, weights))
    there, here = gains.rays(between.shape).to(y), gains.rays(y.shape).to(y)
    plain, freed = B(tv(A, y, weights=weights)), B(tv(A, y - here, weights=weights)) + there
    counts = np.ones(unseen.projections.shape, bool) if unseen.weights is None else unseen.weights > 0
    errors = [float((between - rays)[torch.from_numpy(counts)].square().mean().sqrt()) for rays in (plain, freed)]
    found = {"log_odds": float(gains.log_odds), "gain_rms": float(there[0].square().mean().sqrt())}
    found |= {"unseen_rmse": errors[0], "unseen_rmse_freed": errors[1]}
    told = {"scan": name, "size": str(size), "taken_out": "yes" if gains.log_odds >= STRONG else "no"}
    told |= {key: f"{value:.4g}" for key, value in found.items()}
    print(", ".join(f"{key} {value}" for key, value in told.items()), flush=True)
    return told


if __name__ == "__main__":
    tyro.cli(main)
