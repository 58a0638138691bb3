"""Each way to predict: same prior, same data; mean and deviation of the test targets."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.gp import (
    BlockProjections,
    ConjugateGradients,
    Direct,
    DualDescent,
    GaussianProcess,
    PrimalDescent,
    condition_inducing,
)
from ctuq.gp.exact import Method
from experiments.uci.peer import gpytorch_cg
from experiments.uci.sets import Split


@dataclass(frozen=True)
class Budget:
    """What the stochastic solvers and the peer may spend.

    Parameters
    ----------
    samples : int
        Posterior draws behind each deviation, where it is not exact.
    steps : int
        Of the mini-batch solvers, at most.
    entries : float
        Entries of the kernel matrix that they may touch in all.
    batch : int
        Rows in a mini-batch.
    inducing : int
        Inducing points.
    deviations : int
        Test points at which the peer computes deviations: each costs it one right-hand side, as each draw costs us.
    """

    samples: int = 64
    steps: int = 10_000
    entries: float = 2e10
    batch: int = 512
    inducing: int = 1024
    deviations: int = 64


@dataclass(frozen=True, eq=False)
class Prediction:
    """Mean (m,) and deviation of new targets at the first test points, noise included; and the solve's relative residual."""

    mean: Tensor
    std: Tensor
    residual: float
    note: str = ""


def contestants(budget: Budget) -> dict[str, Callable[[GaussianProcess, Split, torch.Generator], Prediction]]:
    """All ways by name."""

    def descent(kind: type[DualDescent] | type[PrimalDescent]):
        def run(process: GaussianProcess, data: Split, rng: torch.Generator) -> Prediction:
            batch = min(budget.batch, max(1, len(data.x) // 4))
            steps = min(budget.steps, math.ceil(budget.entries / (batch * len(data.x))))
            return _condition(process, data, rng, kind(steps=steps, batch=batch), budget.samples)

        return run

    def method(solver: str | Method):
        return lambda process, data, rng: _condition(process, data, rng, solver, budget.samples)

    def inducing(process: GaussianProcess, data: Split, rng: torch.Generator) -> Prediction:
        post = condition_inducing(process, data.x, data.y, budget.inducing, rng=rng)
        mean, std = post.predict(data.x_test)
        return Prediction(mean, std, 0.0, f"{len(post.z)} points, bound {post.log_evidence_bound:.0f} nats")

    def peer(tolerance: float):
        def run(process: GaussianProcess, data: Split, rng: torch.Generator) -> Prediction:
            mean, std, note = gpytorch_cg(process, data, budget.deviations, tolerance)
            return Prediction(mean, std, math.nan, note)

        return run

    return {
        "auto": method("auto"),
        "cholesky": method(Direct()),
        "cg": method(ConjugateGradients()),
        "blocks": method(BlockProjections()),
        "sdd": descent(DualDescent),
        "sgd": descent(PrimalDescent),
        "inducing": inducing,
        "gpytorch": peer(1e-2),
        "gpytorch_tight": peer(1e-4),
    }


def _condition(process: GaussianProcess, data: Split, rng: torch.Generator, solver: str | Method, samples: int) -> Prediction:
    """Condition on the training data; deviations from ``samples`` draws, exact where a factor is at hand."""
    post = process.condition(data.x, data.y, solver=solver, rng=rng)
    paths = None if post.solver == "cholesky" else post.samples(samples, rng=rng)
    mean, std = post.predict(data.x_test, paths)
    worst = post.residual if paths is None else max(post.residual, float(paths.residual.max()))
    return Prediction(mean, std, worst, f"{post.solver}: {post.reason}")
