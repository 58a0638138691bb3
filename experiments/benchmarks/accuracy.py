"""Error bars by directions of the network against those by its exact Jacobian, where both are possible.

``python -m experiments.benchmarks.accuracy --size 64`` (or 96: 4 GiB for the exact Jacobian): one fit of the walnut from 30
views, both models, each with its own evidence; the relative error of the std over the pixels, median and 95th percentile.
"""

import time
from typing import Literal

import numpy as np
import torch
import tyro

import ctuq
from ctuq.linops.jacobian.network import jacobian_of
from ctuq.pipeline import choose_grid, match_detector
from ctuq.recon.dip import Data, DIPOptions, dip, generator
from ctuq.recon.holdout import choose_views, default_views, split
from ctuq.uncertainty.estimate import estimate
from ctuq.uncertainty.factor import products_of, rank_of
from ctuq.uncertainty.model import image_model
from experiments.unseen_views import STEPS, load


def main(scan: Literal["walnut", "ta", "tb"] = "walnut", size: int = 64) -> None:
    """Print a line for each rank, the exact Jacobian first."""
    whole = load(scan)
    data = whole.select(np.arange(0, whole.n_angles, STEPS[scan]))
    grid = choose_grid(data, size)
    data = match_detector(data, grid)
    A = ctuq.ray_transform(grid, data.geometry, backend="matrix")
    y = torch.tensor(data.projections)
    weights = torch.ones_like(y) if data.weights is None else torch.tensor(data.weights)
    rng = torch.Generator().manual_seed(0)
    held = choose_views(data.geometry.angles, default_views(data.n_angles))[1]
    fit, stop = split(Data(A, y, weights), held, rng=rng)
    generate, start = generator(fit, DIPOptions(), rng=rng)
    *_, state = dip(generate, start, fit, stop, DIPOptions())
    image = generate(state.best)[0].detach()
    _, jacobian = jacobian_of(*generate.module(state.best))
    scale, chosen = float(generate.scale[0]), rank_of(grid.size, y.numel())
    exact = torch.zeros(())
    for rank in (grid.size, chosen, 2 * chosen // 3):
        begun = time.process_time()
        rng = torch.Generator().manual_seed(0)
        model = image_model(A, y, weights, image=image, jacobian=jacobian, scale=scale, prior="isotropic", rank=rank, rng=rng)
        found = estimate(model, y, held, rng=rng)
        std = found.posterior.std() * found.scales.image**0.5
        exact = std if rank == grid.size else exact
        error = (std / exact - 1).abs().flatten()
        median, high = (100 * float(error.quantile(q)) for q in (0.5, 0.95))
        rms, told = 100 * float(error.square().mean().sqrt()), 100 * found.posterior.error
        print(
            f"{scan} {size} x {size}, rank {rank} ({sum(products_of(grid.size, rank))} products), "
            f"{time.process_time() - begun:.0f} s CPU: median {median:.2f} %, 95th percentile {high:.2f} %, rms {rms:.2f} %, "
            f"told {told:.2f} %; log evidence {found.evidence.value:.1f}, image scale {found.scales.image:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    tyro.cli(main)
