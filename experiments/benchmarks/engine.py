"""Times of the engine on one small problem: DIP, Jacobian and evidence, exact covariance, one sample.

``python -m experiments.benchmarks.engine FILE.npz`` with the side-by-side layout (glyph28_a20 is the one with published times).
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import tyro
from tyro.conf import Positional

import ctuq
from ctuq.linops.jacobian.network import jacobian_of
from ctuq.recon.dip import Data, DIPOptions, dip, generator
from ctuq.scores.gaussian import image_scores
from ctuq.uncertainty.estimate import Evidence, fit_evidence
from ctuq.uncertainty.model.factor import rank_of
from ctuq.uncertainty.model.linear import ImageModel, image_model
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.solved import SolvedRays

_SAMPLES = 256


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print wall and CPU seconds of a block."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    print(f"{what:>45}: {time.perf_counter() - wall:8.3f} s wall, {time.process_time() - cpu:8.3f} s CPU")


def told_evidence(found: Evidence) -> None:
    """Print the value and how it was reached."""
    print(f"{'log evidence':>45}: {found.value:.2f} +- {found.error:.2g} ({found.method}), converged {found.converged}")


def main(problem: Positional[Path], target: float = 32.8) -> None:
    """Print the engine's times; the DIP sees all rays, and its PSNR is looked at here only to time it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    scan = ctuq.read(problem)
    assert scan.grid is not None and scan.truth is not None
    A = ctuq.ray_transform(scan.grid, scan.geometry, backend="matrix")
    y = torch.tensor(scan.projections)
    data = Data(A, y[None], torch.ones_like(y)[None])
    rng = torch.Generator().manual_seed(0)
    options = replace(DIPOptions(), patience=1.0)
    generate, start = generator(data, options, rng=rng)
    begun, reached, best = time.process_time(), None, (0.0, 0)
    for state in dip(generate, start, data, data, options):
        psnr = image_scores(generate(state.average)[0].numpy(), scan.truth)["psnr"]
        best = max(best, (psnr, state.iteration))
        if psnr >= target and reached is None:
            reached = time.process_time() - begun
    told = "not reached" if reached is None else f"{reached:.1f} s CPU"
    print(f"DIP to {target:g} dB: {told}; best {best[0]:.2f} dB at {best[1]}, {time.process_time() - begun:.1f} s CPU in all")
    torch.set_num_threads(threads)
    network, inputs = generate.module(state.average)
    image, ones, scale = generate(state.average)[0].detach(), torch.ones_like(y), float(generate.scale[0])
    _, jacobian = jacobian_of(network, inputs)
    every = torch.ones(y.numel(), dtype=torch.bool)

    def model_of(prior: str, rank: int) -> ImageModel:
        return image_model(A, y, ones, image=image, jacobian=jacobian, scale=scale, prior=prior, rank=rank, rng=rng)

    pixels = image.numel()
    for name, rank in (("exact Jacobian", pixels), ("directions", rank_of(pixels, y.numel()))):
        with timed(f"{name}, rank {rank}"):
            model = model_of("isotropic", rank)
        with timed("evidence to convergence"):
            evidence = fit_evidence(model, every, rng=rng)
        told_evidence(evidence)
        with timed("standard deviation of each pixel"):
            posterior = ImagePosterior(SolvedRays.on(model, evidence.point), rng=rng)
            posterior.std()
    with timed("evidence from posterior samples"):
        told_evidence(fit_evidence(model, every, rng=rng, method="em"))
    for name in ("layerwise", "filter"):
        with timed(f"model and evidence, {name} prior"):
            found = fit_evidence(model_of(name, rank_of(pixels, y.numel())), every, rng=rng)
        told_evidence(found)
    with timed(f"{_SAMPLES} samples"):
        posterior.deviations(_SAMPLES, rng=rng)
    print(f"{'peak memory':>45}: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    tyro.cli(main)
