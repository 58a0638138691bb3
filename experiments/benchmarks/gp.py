"""Gaussian process solvers on a function drawn from the prior itself: accuracy against time, and parallel Thompson sampling.

``python -m experiments.benchmarks.gp`` (n = 2,000 points, 20 s of choosing for each solver; both are options).
"""

import time
import warnings
from collections.abc import Callable

import torch
import tyro
from torch import Tensor

from ctuq.gp import (
    BlockProjections,
    ConjugateGradients,
    Direct,
    Domain,
    DualDescent,
    GaussianProcess,
    GaussianProcessPosterior,
    Matern32,
    PrimalDescent,
    SamplePaths,
    condition_inducing,
    thompson,
)
from ctuq.gp.paths import prior_paths

SOLVERS = (Direct(), ConjugateGradients(), BlockProjections(), DualDescent(steps=2000), PrimalDescent(steps=2000))
_SAMPLES, _NOISE, _SCALE = 64, 1e-3, 0.6


def table_of_solvers(process: GaussianProcess, x: Tensor, y: Tensor, new: Tensor) -> None:
    """Print how far each mean is from the exact one in posterior deviations, the deviation of its draws over it, and times."""
    exact = process.condition(x, y, solver="cholesky", rng=torch.Generator())
    mean, std = exact.mean(new), exact.std(new)
    print(f"{'solver':>10} {'mean':>9} {'std ratio':>9} {'residual':>9} {'condition':>10} {'64 draws':>9}  (s wall)")
    for solver in SOLVERS:
        rng, start = torch.Generator().manual_seed(1), time.perf_counter()
        post: GaussianProcessPosterior = process.condition(x, y, solver=solver, rng=rng)
        middle = time.perf_counter()
        paths = post.samples(_SAMPLES, rng=rng)
        seconds = middle - start, time.perf_counter() - middle
        row(
            solver.name,
            (post.mean(new), (paths(new) - post.mean(new)).square().mean(0).sqrt()),
            (mean, std),
            post.residual,
            seconds,
        )
    rng, start = torch.Generator().manual_seed(1), time.perf_counter()
    sparse = condition_inducing(process, x, y, min(1024, len(x) // 2), rng=rng)
    middle = time.perf_counter()
    sparse.samples(_SAMPLES, rng=rng)
    seconds = middle - start, time.perf_counter() - middle
    row("inducing", (sparse.mean(new), sparse.std(new)), (mean, std), 0.0, seconds)


def row(
    name: str, found: tuple[Tensor, Tensor], truth: tuple[Tensor, Tensor], residual: float, seconds: tuple[float, float]
) -> None:
    """One line of the table."""
    off = float(((found[0] - truth[0]) / truth[1]).square().mean().sqrt())
    ratio = float((found[1].square().mean() / truth[1].square().mean()).sqrt())
    print(f"{name:>10} {off:9.1e} {ratio:9.3f} {residual:9.1e} {seconds[0]:10.2f} {seconds[1]:9.2f}")


def campaigns(
    process: GaussianProcess, x: Tensor, objective: Callable[[Tensor], Tensor], seconds: float, parallel: int
) -> None:
    """Print what each solver finds when it may choose for ``seconds``, all from the same data."""
    domain = Domain(torch.zeros(x.shape[1], dtype=torch.float64), torch.ones(x.shape[1], dtype=torch.float64))
    print(f"Thompson sampling from {len(x)} points, {parallel} in parallel: best value")
    draws = {s.name: lambda x, y, rng, s=s: process.condition(x, y, solver=s, rng=rng) for s in SOLVERS}
    draws["inducing"] = lambda x, y, rng: condition_inducing(process, x, y, min(1024, len(x) // 2), rng=rng)
    for name, condition in draws.items():
        rng = torch.Generator().manual_seed(2)

        def draw(x: Tensor, y: Tensor, condition=condition, rng=rng) -> SamplePaths:
            return condition(x, y, rng).samples(parallel, rng=rng, features=500)

        points, values, spent, told = x, objective(x), 0.0, []
        while spent < seconds:
            found = thompson(objective, draw, points, values, domain, rounds=1, rng=rng)
            points, values, spent = found.x, found.y, spent + found.seconds[-1]
            told.append(f"{found.best[-1]:.3f} ({spent:.0f} s)")
        print(f"{name:>10} {float(objective(x).max()):.3f} at first, " + ", ".join(told[-4:]) + f"; {len(told)} rounds")


def main(n: int = 2000, inputs: int = 4, seconds: float = 20.0, parallel: int = 64, seed: int = 0) -> None:
    """Print both tables."""
    warnings.simplefilter("ignore")  # residuals are printed
    rng = torch.Generator().manual_seed(seed)
    process = GaussianProcess(Matern32.of(1.0, _SCALE, inputs), _NOISE)
    truth = prior_paths(process.kernel, inputs, 1, rng=rng, features=5000)

    def objective(x: Tensor) -> Tensor:
        return truth(x)[0]

    x, new = (torch.rand(count, inputs, generator=rng, dtype=torch.float64) for count in (n, 500))
    y = objective(x) + _NOISE**0.5 * torch.randn(n, generator=rng, dtype=torch.float64)
    table_of_solvers(process, x, y, new)
    campaigns(process, x, objective, seconds, parallel)


if __name__ == "__main__":
    tyro.cli(main)
