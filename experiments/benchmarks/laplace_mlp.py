"""Dense Laplace of a small network: ours and laplace-torch's on the same weights, data and hyperparameters, in one run.

``python -m experiments.benchmarks.laplace_mlp`` prints CPU and wall seconds of fit and prediction, at a given precision and
with the precision learned by the evidence, and how far the predictions differ at the same precision. Needs ``baselines``.
"""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import tyro
from torch import Tensor

from ctuq import laplace
from ctuq.baselines.networks import laplace_torch
from ctuq.laplace.evidence.dense import ExactExpectation
from ctuq.laplace.predictive import probit
from ctuq.laplace.system.solver_choice import problem_of
from experiments.engine.networks import build, mlp, train

_NOISE = 0.04


@dataclass(frozen=True)
class Options:
    """Of the benchmark."""

    n: int = 1000
    new: int = 500
    inputs: int = 20
    hidden: int = 32
    outputs: int = 3
    repeats: int = 3
    double: bool = False
    """Networks in float64: both libraries then agree to rounding."""
    precision: float = 5.0


@dataclass(frozen=True, eq=False)
class Task:
    """A trained network with data to fit and to predict."""

    name: str
    network: torch.nn.Module
    x: Tensor
    y: Tensor
    new: Tensor
    likelihood: laplace.Gaussian | laplace.Categorical

    def model(self) -> laplace.LinearModel:
        """The tangent model in all weights and biases, as laplace-torch has it."""
        names = [name for name, _ in self.network.named_parameters()]
        offset = "delta" if self.name == "regression" else "features"
        return laplace.linearise(self.network, self.x, likelihood=self.likelihood, parameters=names, offset=offset)


def task(name: str, options: Options) -> Task:
    """Random data of a smooth function, and a network that has learned it."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(options.n + options.new, options.inputs, generator=rng)
    f = torch.tanh(x @ torch.randn(options.inputs, options.outputs, generator=rng) / options.inputs**0.5)
    values = f + _NOISE**0.5 * torch.randn(f.shape, generator=rng)
    dtype = torch.float64 if options.double else torch.float32
    y = values.to(dtype) if name == "regression" else values.argmax(1)
    x = x.to(dtype)
    sizes = [options.inputs, options.hidden, options.hidden, options.outputs]
    network = build(lambda: mlp(sizes, activation=torch.nn.Tanh).to(dtype), 0)
    train(network, x[: options.n], y[: options.n], epochs=20, seed=0)
    likelihood = laplace.Gaussian(_NOISE) if name == "regression" else laplace.Categorical()
    return Task(name, network, x[: options.n], y[: options.n], x[options.n :], likelihood)


def ours(task: Task, precision: float) -> Tensor:
    """Variances (n, c, c), or probit probabilities (n, c), at a given precision."""
    model = task.model()
    prior, noise = laplace.isotropic(model), _NOISE if task.name == "regression" else 1.0
    psi = torch.tensor([-math.log(precision)], dtype=torch.float64)
    outputs, jacobian = model.at(task.new)
    rows = jacobian.dense().reshape(*outputs.shape, -1)
    point = laplace.Point(psi, torch.tensor([noise], dtype=torch.float64))
    covariance = ExactExpectation(problem_of(model, task.y), prior).output_covariance(point, rows)
    if task.name == "regression":
        return covariance
    return probit(laplace.Categorical(), outputs.double(), covariance.diagonal(dim1=1, dim2=2))


def theirs(task: Task, precision: float | None) -> Tensor:
    """The same by laplace-torch, which learns its precision if there is none."""
    found = laplace_torch(task.model(), task.y, structure="full", precision=precision).library
    return found(task.new)[1] if task.name == "regression" else found(task.new, link_approx="probit")


def ours_learned(task: Task) -> Tensor:
    """The same through the four steps, with the precision learned."""
    model = task.model()
    fit = laplace.maximise_evidence(model, task.y, laplace.isotropic(model), with_sweep=False)
    found = laplace.posterior(fit).predict(task.new, method="probit")
    return found.probabilities if isinstance(found, laplace.Classes) else found.covariance


def timed(run: Callable[[], Tensor], repeats: int) -> tuple[float, float]:
    """Least CPU and wall seconds."""
    taken = []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        run()
        taken.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(c for c, _ in taken), min(w for _, w in taken)


def main(options: Options) -> None:
    """Print times, ratios and differences."""
    warnings.simplefilter("ignore")
    for name in ("regression", "classification"):
        job, precision = task(name, options), options.precision
        mine, other = ours(job, precision), theirs(job, precision).double()
        worst = float((mine - other).abs().max() / other.abs().max())
        print(f"{name}: {len(job.model().weights)} weights, largest difference {worst:.1e} of the largest value", flush=True)
        runs = {
            "given precision": (partial(ours, job, precision), partial(theirs, job, precision)),
            "learned precision": (partial(ours_learned, job), partial(theirs, job, None)),
        }
        for what, (first, second) in runs.items():
            (a, wall_a), (b, wall_b) = timed(first, options.repeats), timed(second, options.repeats)
            told = f"ours {a:.3f} s CPU ({wall_a:.3f} wall), laplace-torch {b:.3f} ({wall_b:.3f}), ratio {b / a:.1f}"
            print(f"{what:>20}: {told}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
