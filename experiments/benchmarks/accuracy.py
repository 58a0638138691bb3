"""Error bars by directions of the network against those by its exact Jacobian, where both are possible.

``python -m experiments.benchmarks.accuracy --size 64`` (or 96: 4 GiB for the exact Jacobian): one fit of the walnut from 30
views, both models, each with its own evidence; the relative error of the std over the pixels, median and 95th percentile.
``--every 1 --ranks 1000 500`` takes other views than every fourth (of ta every eighth), and other numbers of directions.
``--scan strangers --size 32`` does so for simulated scans that nothing was tuned on: fans, arcs, weights of twelve decades.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

import ctuq
from ctuq.linops.jacobian.network import jacobian_of
from ctuq.pipeline import choose_grid, match_detector
from ctuq.recon.dip import Data, DIPOptions, dip, generator
from ctuq.recon.holdout import choose_views, default_views, split
from ctuq.tomo.phantoms import ellipses
from ctuq.tomo.simulate import PhotonNoise, phantom_scan, simulate
from ctuq.uncertainty.estimate import estimate
from ctuq.uncertainty.model.factor import products_of, rank_of
from ctuq.uncertainty.model.linear import image_model
from experiments.unseen_views import STEPS, load

_WIDE = 40.0
_FEW = 120
"""Iterations of a stranger's fit: what directions leave out does not ask for the best image."""


def main(
    scan: Literal["walnut", "ta", "tb", "tooth", "strangers"] = "walnut",
    size: int = 64,
    every: int | None = None,
    ranks: tuple[int, ...] = (),
) -> None:
    """Print a line for each rank, the exact Jacobian first."""
    if scan == "strangers":
        for name, data in strangers(size):
            compare(name, data, size, DIPOptions(iterations=_FEW))
        return
    whole = load(scan)
    step = STEPS.get(scan, 1) if every is None else every
    compare(scan, whole.select(np.arange(0, whole.n_angles, step)), size, ranks=ranks)


def strangers(size: int) -> Iterator[tuple[str, ctuq.Scan]]:
    """Simulated scans that people may bring, of an object of a few ellipses each."""
    fan = ctuq.FanBeam(
        angles=ctuq.radians(np.arange(0, 360, 6.0)),
        columns=round(1.6 * size),
        pixel=2 * _WIDE / size,
        source_to_axis=150.0,
        source_to_detector=300.0,
    )
    yield "fan of 60 views", _fan(fan, size, 1)
    yield "arc of 100 degrees", phantom_scan("ellipses", size, ctuq.radians(np.arange(0, 100, 3.6)), noise=0.02, seed=2)
    yield "fan over 200 degrees", _fan(replace(fan, angles=ctuq.radians(np.arange(0, 200, 4.0))), size, 3)
    plain = phantom_scan("rectangles", size, ctuq.radians(np.arange(0, 180, 6.0)), noise=0.02, seed=4)
    spread = 10.0 ** np.random.default_rng(5).uniform(-6, 6, plain.projections.shape)
    yield "weights from 1e-6 to 1e6", replace(plain, weights=spread.astype(np.float32))
    yield "150 views", phantom_scan("glyph", size, ctuq.radians(np.arange(0, 180, 1.2)), noise=0.02, seed=6)


def _fan(geometry: ctuq.FanBeam, size: int, seed: int) -> ctuq.Scan:
    rng = np.random.default_rng(seed)
    grid = ctuq.VolumeGrid((size, size), _WIDE / size)
    return simulate(lambda n: ellipses(n, rng), geometry, grid, PhotonNoise(20000), rng=rng, attenuation=0.08)


def compare(name: str, data: ctuq.Scan, size: int, options: DIPOptions | None = None, *, ranks: tuple[int, ...] = ()) -> None:
    """Fit once, then error bars by the exact Jacobian and by directions: as many as a run takes, and two thirds, or these."""
    options = DIPOptions() if options is None else options
    rng = torch.Generator().manual_seed(0)
    y, held, given = fit_of(data, size, options, rng)
    grid_size = given["image"].numel()
    chosen = rank_of(grid_size, y.numel())
    exact = torch.zeros(())
    for rank in (grid_size, *(ranks or (chosen, 2 * chosen // 3))):
        begun = time.process_time()
        rng = torch.Generator().manual_seed(0)
        model = image_model(**given, rank=rank, rng=rng)
        found = estimate(model, y, held, rng=rng)
        std = found.posterior.std() * found.scales.image**0.5
        exact = std if rank == grid_size else exact
        error = (std / exact - 1).abs().flatten()
        median, high = (100 * float(error.quantile(q)) for q in (0.5, 0.95))
        rms, told = 100 * float(error.square().mean().sqrt()), 100 * found.posterior.error
        print(
            f"{name}, {size} x {size}, rank {rank} ({sum(products_of(grid_size, rank, y.numel()))} products), "
            f"{time.process_time() - begun:.0f} s CPU: median {median:.2f} %, 95th percentile {high:.2f} %, rms {rms:.2f} %, "
            f"told {told:.2f} %; log evidence {found.evidence.value:.1f}, image scale {found.scales.image:.2f}",
            flush=True,
        )


def fit_of(
    data: ctuq.Scan, size: int, options: DIPOptions, rng: torch.Generator
) -> tuple[torch.Tensor, NDArray[np.int64], dict[str, Any]]:
    """Projections, held-out views, and what `image_model` takes of a fit to the others, but for its rank and random numbers."""
    grid = choose_grid(data, size)
    data = match_detector(data, grid)
    A = ctuq.ray_transform(grid, data.geometry, backend="matrix")
    y = torch.tensor(data.projections)
    weights = torch.ones_like(y) if data.weights is None else torch.tensor(data.weights)
    held = choose_views(data.geometry.angles, default_views(data.n_angles))[1]
    fit, stop = split(Data(A, y, weights), held, rng=rng)
    generate, start = generator(fit, options, rng=rng)
    *_, state = dip(generate, start, fit, stop, options)
    image = generate(state.best)[0].detach()
    _, jacobian = jacobian_of(*generate.module(state.best))
    given = {"A": A, "y": y, "weights": weights, "image": image, "jacobian": jacobian, "scale": float(generate.scale[0])}
    return y, held, given | {"prior": "isotropic"}


if __name__ == "__main__":
    tyro.cli(main)
