"""Toy regression with a gap between the data: the exact posterior, and where each solver is still wrong after some passes.

``python -m experiments.engine.toy`` writes ``figures/engine_toy.{csv,png}``. All solvers condition the same draws, so that
their errors are theirs and not those of sampling.
"""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from ctuq import laplace
from ctuq.laplace.system.descent import DualSampler, PrimalSampler
from ctuq.laplace.system.problem import System
from ctuq.laplace.system.sampling import Conditioned, Draws, condition
from ctuq.linops.solve import CG, Cholesky
from experiments import FIGURES
from experiments.engine.networks import build, mlp, train
from experiments.engine.rows import Row, Rows

COLOURS = {"cg": "#1d4ed8", "sgd": "#c2410c", "sdd": "#047857"}
PASSES = {"cg": (5, 10, 20, 40), "sgd": (100, 300, 900), "sdd": (100, 300, 900)}
CLUSTERS = ((-1.5, -0.8), (0.4, 1.6))


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    quick: bool = False
    n: int = 120
    draws: int = 64
    seed: int = 0
    out: Path = FIGURES / "engine_toy"


def regions(x: Tensor) -> dict[str, Tensor]:
    """Which inputs lie among the data, in the gap between them, and far from them."""
    (a, b), (c, d) = CLUSTERS
    data = ((x >= a) & (x <= b)) | ((x >= c) & (x <= d))
    return {"data": data, "gap": (x > b) & (x < c), "far": (x < a - 0.4) | (x > d + 0.4)}


def problem(options: Options) -> tuple[laplace.LinearModel, Tensor, Tensor]:
    """A trained network of two hidden layers, linearised; the inputs and the noisy values, float64."""
    rng = torch.Generator().manual_seed(options.seed)
    parts = torch.rand(2, options.n // 2, generator=rng, dtype=torch.float64)
    x = torch.cat([a + (b - a) * u for (a, b), u in zip(CLUSTERS, parts, strict=True)])[:, None]
    y = torch.sin(3 * x) + 0.5 * x + 0.15 * torch.randn(x.shape, generator=rng, dtype=torch.float64)
    net = build(lambda: mlp([1, 24, 24, 1], activation=nn.Tanh).double(), options.seed)
    train(net, x, y, epochs=100 if options.quick else 600, seed=options.seed)
    names = [name for name, _ in net.named_parameters()]
    return laplace.linearise(net, x, likelihood=laplace.Gaussian(), parameters=names, offset="taylor"), x, y


def solve(name: str, passes: int, system: System, draws: Draws, seed: int) -> Conditioned:
    """Draws conditioned by a solver that stops after some passes over the data."""
    rng = torch.Generator().manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # residuals are recorded
        if name == "cg":
            return condition(system, draws, CG(rtol=1e-10, max_steps=passes))
        kind = PrimalSampler if name == "sgd" else DualSampler
        return kind(draws, rng=rng, batch=12, epochs=passes)(system, True, None)


def main(options: Options) -> None:
    """Fit, sample by every solver, write table and figure."""
    model, x, y = problem(options)
    fit = laplace.maximise_evidence(model, y)
    post = laplace.posterior(fit)
    grid = torch.linspace(-2.6, 2.6, 261, dtype=torch.float64)[:, None]
    _, jacobian = model.at(grid)
    mean, std = post.mean(grid)[:, 0], post.std(grid)[:, 0]
    rng = torch.Generator().manual_seed(options.seed)
    draws, system = Draws.of(fit.problem, options.draws, rng=rng), System(fit.problem, fit.prior, fit.point)
    exact = jacobian(condition(system, draws, Cholesky()).samples)[:, :, 0]
    table, errors = Rows(options.out.with_suffix(".csv")), {}
    table.rows.clear()
    for name, counts in PASSES.items():
        for passes in counts[:2] if options.quick else counts:
            begun = time.process_time()
            found = solve(name, passes, system, draws, options.seed)
            seconds, wrong = time.process_time() - begun, jacobian(found.samples)[:, :, 0] - exact
            row: Row = {"solver": name, "passes": passes, "cpu_seconds": seconds, "residual": float(found.residual.max())}
            for region, place in regions(grid[:, 0]).items():
                row[f"error_{region}"] = float((wrong[:, place].square().mean() / std[place].square().mean()).sqrt())
            errors[name, passes] = wrong.square().mean(0).sqrt()
            table.add([row])
    print(
        f"{fit.method}: log evidence {fit.log_evidence:.2f}, dimension {fit.total_dimension.value:.1f} of {len(model.weights)}"
    )
    figure = Figure(figsize=(13, 7), layout="constrained")
    top, bottom = figure.subplots(2, 3)
    draw_posterior(top[0], (x[:, 0], y[:, 0]), grid[:, 0], (mean, std, exact[:6]))
    draw_convergence(top[1:], table)
    for axes, name in zip(bottom, PASSES, strict=True):
        draw_errors(axes, name, {p: e for (n, p), e in errors.items() if n == name}, grid[:, 0], std)
        axes.plot(x[:, 0], torch.full_like(x[:, 0], 2e-6), "|", color="#111827")
    figure.savefig(options.out.with_suffix(".png"), dpi=120)


def draw_posterior(axes: Axes, data: tuple[Tensor, Tensor], x: Tensor, posterior: tuple[Tensor, Tensor, Tensor]) -> None:
    """Band, samples and data, from mean, standard deviation and deviations of samples."""
    mean, std, samples = posterior
    axes.fill_between(x, mean - 2 * std, mean + 2 * std, color="#bfdbfe", lw=0)
    axes.plot(x, (mean + samples).T, color="#60a5fa", lw=0.7)
    axes.plot(x, mean, color="#1e3a8a")
    axes.plot(*data, ".", color="#111827", ms=3)
    axes.set(title="exact posterior: mean, 2 std, 6 samples", ylim=(-4, 4), xlabel="x")


def draw_convergence(panels: Sequence[Axes], table: Rows) -> None:
    """Errors relative to the posterior's std against passes, and against CPU time."""
    for axes, against in zip(panels, ("passes", "cpu_seconds"), strict=True):
        for name, colour in COLOURS.items():
            rows = table.where(solver=name)
            for region, style in (("data", "-"), ("gap", "--"), ("far", ":")):
                values = np.maximum([row[f"error_{region}"] for row in rows], 1e-6)
                axes.loglog([row[against] for row in rows], values, style, color=colour, label=f"{name}, {region}", marker=".")
        axes.set(title="error of samples / posterior std (floor 1e-6)", ylim=(5e-7, 100))
    panels[0].set(xlabel="passes over the data")
    panels[1].set(xlabel="CPU seconds")
    panels[0].legend(frameon=False, fontsize=8, ncols=3)


def draw_errors(axes: Axes, name: str, errors: dict[int, Tensor], x: Tensor, std: Tensor) -> None:
    """Where the samples of a solver are wrong after some passes."""
    for shade, (count, error) in zip(np.linspace(0.35, 1, len(errors)), errors.items(), strict=True):
        axes.plot(x, error.clamp(min=1e-6), color=COLOURS[name], alpha=shade, label=f"{count} passes")
    axes.plot(x, std, color="#9ca3af", ls="--", label="posterior std")
    axes.set(title=f"{name}: RMS error of samples", xlabel="x", yscale="log", ylim=(1e-6, 30))
    axes.legend(frameon=False, fontsize=8, loc="upper right")


if __name__ == "__main__":
    main(tyro.cli(Options))
