"""Angle design: what a step costs, how long a suggestion takes, and what sampling in place of exact algebra would change.

``python -m experiments.benchmarks.design r32_0.npz`` runs all parts; ``--parts steps sampled latency published`` some of them.
CPU seconds on one thread, except the latency, which is also given in wall seconds, on ``--threads`` threads.
"""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor
from tyro.conf import Positional

from ctuq.baselines.pixels import PixelMatern
from ctuq.design import (
    CRITERIA,
    EIG,
    ESE,
    Criterion,
    DenseCovariance,
    Designer,
    DesignProblem,
    GaussianModel,
    LinDIPOptions,
    Measurements,
)
from ctuq.design.algebra.conditioning import GivenViews
from ctuq.design.algebra.covariance import Covariance, low_rank, sampled
from ctuq.design.algebra.rows import ViewRows
from ctuq.design.models.lindip import linear_of, model_of, retrain
from ctuq.recon.dip import DIPOptions
from ctuq.stages import Stages
from ctuq.tomo import ParallelBeam, VolumeGrid, ray_transform
from ctuq.tomo.phantoms import rectangles
from ctuq.tomo.rays.matrix import MatrixRayTransform
from ctuq.uncertainty.estimate import by_size, kept_evidence
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.solved import SolvedRays
from experiments.design_side_by_side import Bench

Part = Literal["steps", "sampled", "latency", "published"]
STEPS = 15
_WHOLE = 4096
"""Pixels, at most, whose whole posterior covariance is made by the engine."""


def main(
    problem: Positional[Path],
    parts: tuple[Part, ...] = ("steps", "sampled", "latency", "published"),
    size: int = 128,
    rank: int = 2000,
    threads: int = 2,
) -> None:
    """Print the figures."""
    torch.set_num_threads(1)
    if {"steps", "sampled"} & set(parts):
        bench = Bench(problem, 1.0)
        measured, options = _pilot(bench.A, bench.pilot, torch.tensor(bench.y)), LinDIPOptions()
        fitted, linear = retrain(measured, options)
        model, floor = model_of(linear, fitted), fitted.scales.image * linear.misfit(fitted.evidence.psi).diagonal
        if "steps" in parts:
            steps(bench, model)
        if "sampled" in parts:
            sampling(bench, model, floor)
    if "latency" in parts:
        torch.set_num_threads(threads)
        latency(size, rank)
        torch.set_num_threads(1)
    if "published" in parts:
        published(size, rank)
    print(f"\nlargest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


class Clock:
    """Wall and CPU seconds since it was made, as text."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def __str__(self) -> str:
        return f"{time.perf_counter() - self.wall:.2f} ({time.process_time() - self.cpu:.2f})"


def steps(bench: Bench, model: GaussianModel) -> None:
    """Exact greedy steps after the network's products: reference 3.8 s a step at 200 samples, 1 s for all 15 to reach."""
    print(f"\n{STEPS} exact steps on {bench.A.grid.shape}, {len(bench.angles)} candidates, linearised DIP; CPU s on one thread")
    for name in CRITERIA:
        start = time.process_time()
        given = _given(bench, model, model.covariance, CRITERIA[name])
        ready = time.process_time()
        greedy(given, CRITERIA[name], STEPS)
        print(f"{name:14s} steps {time.process_time() - ready:.3f}, before them (blocks and pilot views) {ready - start:.3f}")


def sampling(bench: Bench, model: GaussianModel, floor: Tensor) -> None:
    """Choices and scores from factors of prior samples and from randomised factors, against the exact ones."""
    assert isinstance(model.covariance, DenseCovariance)
    S, rng = model.covariance.matrix - torch.diag(floor), torch.Generator().manual_seed(0)
    root = torch.linalg.cholesky(S + 1e-9 * S.diagonal().mean() * torch.eye(len(S)))

    def draw(k: int) -> Tensor:
        return torch.randn(k, len(S), generator=rng).double() @ root.T

    variants: dict[str, Callable[[], Covariance]] = {"exact": lambda: model.covariance}
    for count in (200, 3000):
        variants[f"{count} prior samples"] = lambda c=count: sampled(draw, c, white=floor)
    for count in (100, 200, 300, 400):
        variants[f"randomised factor, rank {count}"] = lambda c=count: low_rank(
            lambda x: x @ S, len(S), c, rng=rng, white=floor
        )
    for criterion in (EIG, ESE):
        exact = _given(bench, model, model.covariance, criterion)
        truth, best = greedy(exact, criterion, STEPS)
        reached = worth(exact, best)
        print(f"\n{criterion.name}: scores after the pilot, {STEPS} choices, and the exact information gained by them")
        for name, make in variants.items():
            scores, views = greedy(_given(bench, model, make(), criterion), criterion, STEPS)
            same = next((i for i, (a, b) in enumerate(zip(views, best, strict=True)) if a != b), STEPS)
            error = scores[0] / truth[0] - 1
            bias = f"score bias {error.mean():+7.1%}, spread {error.std():6.1%}"
            shared, gain = len(set(views) & set(best)), worth(exact, views) / reached
            print(f"{name:28s} {bias}; first {same:2d} choices the same, {shared:2d} of {STEPS} in all; {gain:.2%} of the gain")


def latency(size: int, rank: int) -> None:
    """Seconds from telling one view to the next suggestion, 180 candidates; to reach: 2."""
    print(f"\nsuggestions at {size} x {size}, 180 candidates, {torch.get_num_threads()} threads; wall s (CPU s of all threads)")
    A = _transform(size, 180)
    kernel = PixelMatern(A.grid.shape, size / 8)
    rng = torch.Generator().manual_seed(0)
    models: dict[str, Callable[[], Covariance]] = {
        f"factor of rank {rank}": lambda: low_rank(kernel.times, A.grid.size, rank, rng=rng),
        "exact": lambda: DenseCovariance(kernel.dense()),
    }
    y = np.zeros(A.geometry.shape, np.float32)
    for label, make in models.items():
        designer, clock = Designer(DesignProblem(A=A), GaussianModel(make(), 1e-2)), Clock()
        pilot = np.arange(0, 180, 36)
        designer.tell(A.geometry.angles[pilot], y[pilot])
        asked = designer.ask()
        print(f"{label}: blocks of all candidates and 5 pilot views {clock}", end="", flush=True)
        times = []
        for _ in range(35):
            clock = Clock()
            designer.tell(asked.angles, y[asked.views])
            asked = designer.ask()
            times.append(str(clock))
        print("; suggestion after 6, 20, 40 views " + ", ".join(times[i] for i in (0, 14, 34)), flush=True)


def published(size: int, rank: int) -> None:
    """The published size: 200 candidates, 5 pilot and 35 further angles, all but the fit; to reach: 10 CPU minutes."""
    print(f"\n{size} x {size}, 200 candidates, 35 angles after 5 pilot views, without the fit; CPU s on one thread")
    A = _transform(size, 200)
    truth = torch.from_numpy(rectangles(size, np.random.default_rng(0), direction=0.6)).float()
    y = A(truth)
    y = y + 0.05 * y.abs().mean() * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    measured = _pilot(A, np.arange(0, 200, 40), y)
    options = LinDIPOptions(dip=DIPOptions(iterations=300), rank=rank)
    start = time.process_time()
    fitted, _ = retrain(measured, options)
    print(f"a short fit with its evidence, not counted {time.process_time() - start:.1f}", flush=True)
    marks = [time.process_time()]
    linear = linear_of(measured, fitted, options)
    model = model_of(linear, fitted)
    marks.append(time.process_time())
    every = torch.ones_like(linear.target, dtype=torch.bool)
    kept_evidence(linear, every, way=by_size(linear, every), rng=torch.Generator().manual_seed(0), stages=Stages())
    marks.append(time.process_time())
    made = f"products with the network and covariance {marks[1] - marks[0]:.1f} ({model.note})"
    print(f"{made}; evidence {marks[2] - marks[1]:.1f}", flush=True)
    designer = Designer(DesignProblem(A=A), model)
    designer.tell(A.geometry.angles[measured.views], y[measured.views].numpy())
    asked = designer.ask()
    marks.append(time.process_time())
    for _ in range(35):
        designer.tell(asked.angles, y[asked.views].numpy())
        asked = designer.ask()
    marks.append(time.process_time())
    minutes = (marks[4] - marks[0]) / 60
    print(f"blocks and pilot {marks[3] - marks[2]:.1f}; 35 steps {marks[4] - marks[3]:.1f}; in all {minutes:.1f} min")
    if linear.image.numel() <= _WHOLE:
        start = time.process_time()
        ImagePosterior(SolvedRays.on(linear, fitted.evidence.point), rng=torch.Generator()).covariance()
        print(f"the covariance given the pilot views by the engine, not used: {time.process_time() - start:.1f}")


def greedy(given: GivenViews, criterion: Criterion, n: int) -> tuple[list[NDArray], list[int]]:
    """Scores before each of n picks, and the picks."""
    table, views = [], []
    for _ in range(n):
        scores = criterion(given).numpy().copy()
        table.append(scores.copy())
        scores[list(given.views)] = -np.inf
        views.append(int(scores.argmax()))
        given = given.given(views[-1])
    return table, views


def worth(given: GivenViews, views: list[int]) -> float:
    """The information that the views give together, nats."""
    total = 0.0
    for view in views:
        total += float(EIG(given)[view])
        given = given.given(view)
    return total


def _given(bench: Bench, model: GaussianModel, covariance: Covariance, criterion: Criterion) -> GivenViews:
    precision = torch.full(bench.A.geometry.shape, 1 / model.sigma2, dtype=torch.float64)
    region = torch.ones(bench.A.grid.size, dtype=torch.float64) if criterion.regional else None
    given = GivenViews.start(ViewRows(bench.A.matrix, len(bench.angles)), covariance, precision, region=region)
    for view in bench.pilot:
        given = given.given(int(view))
    return given


def _pilot(A: MatrixRayTransform, views: NDArray, y: Tensor) -> Measurements:
    return Measurements(A, views, y[views].float(), torch.ones_like(y[views]).float())


def _transform(size: int, views: int) -> MatrixRayTransform:
    columns = int(np.ceil(np.hypot(size, size))) + 1
    geometry = ParallelBeam(angles=np.arange(views) * np.pi / views, columns=columns, pixel=1.0)
    A = ray_transform(VolumeGrid((size, size), 1.0), geometry, backend="matrix")
    assert isinstance(A, MatrixRayTransform)
    return A


if __name__ == "__main__":
    tyro.cli(main)
