"""Evidence of one shared precision, one a layer, and the g-prior, with and without normalisation layers, at rescaled weights.

``python -m experiments.engine.evidence_priors`` writes ``figures/engine_evidence_priors.{csv,png}``: the toy regression;
weights before a normalisation are multiplied by a factor that leaves the network's function as it is.
"""

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor, nn

from ctuq import laplace
from experiments import FIGURES
from experiments.engine.networks import build, mlp, train
from experiments.engine.rows import Row, Rows
from experiments.engine.toy import CLUSTERS, regions

FACTORS = (0.1, 1.0, 10.0)
PRIORS: dict[str, Callable[[laplace.LinearModel], laplace.DiagonalPrior]] = {
    "shared": laplace.isotropic,
    "layerwise": laplace.layerwise,
    "g": laplace.g_prior,
}
COLOURS = {"shared": "#c2410c", "layerwise": "#a16207", "g": "#1d4ed8"}


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    quick: bool = False
    n: int = 120
    hidden: int = 24
    seed: int = 0
    out: Path = FIGURES / "engine_evidence_priors"


def data(options: Options) -> tuple[Tensor, Tensor]:
    """Inputs with a constant beside them, which stands for biases, and noisy values; float64."""
    rng = torch.Generator().manual_seed(options.seed)
    parts = torch.rand(2, options.n // 2, generator=rng, dtype=torch.float64)
    x = torch.cat([a + (b - a) * u for (a, b), u in zip(CLUSTERS, parts, strict=True)])[:, None]
    y = torch.sin(3 * x) + 0.5 * x + 0.15 * torch.randn(x.shape, generator=rng, dtype=torch.float64)
    return torch.cat([x, torch.ones_like(x)], 1), y


def rescaled(network: nn.Module, factor: float) -> nn.Module:
    """A copy whose hidden layers' weights and biases are multiplied: with normalisation, the same function."""
    copy = deepcopy(network)
    linear = [layer for layer in copy.modules() if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer in linear[:-1]:
            layer.weight *= factor
            layer.bias *= factor
    return copy


def measure(network: nn.Module, x: Tensor, y: Tensor, prior: str, grid: Tensor) -> tuple[Row, Tensor, Tensor]:
    """Evidence, dimensions and error bars; mean and standard deviation on the grid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the shared precision's warning is the subject
        model = laplace.linearise(network, x, offset="taylor")
        fit = laplace.maximise_evidence(model, y, PRIORS[prior](model), with_sweep=False)
    post = laplace.posterior(fit)
    mean, std = post.mean(grid)[:, 0], post.std(grid)[:, 0]
    row: Row = {"log_evidence": fit.log_evidence, "sigma": float(fit.sigma2.sqrt()), "dimension": fit.total_dimension.value}
    by_layer = _by_layer(fit, model)
    row |= {f"dimension_layer_{i}": value for i, value in enumerate(by_layer)}
    row |= {f"std_{name}": float(std[place].square().mean().sqrt()) for name, place in regions(grid[:, 0]).items()}
    row["precision"] = float((-fit.psi[0]).exp())
    return row, mean, std


def _by_layer(fit: laplace.Fit, model: laplace.LinearModel) -> list[float]:
    """Effective dimension of each layer's weights, ``sum (Sigma^-1 (Sigma - S))_ii`` over its own."""
    H, noise = model.features.dense(), float(fit.sigma2)
    eye = torch.eye(len(model.weights), dtype=torch.float64)
    sigma = fit.prior.covariance(eye, fit.psi)
    gain = H.T @ torch.linalg.solve(H @ sigma @ H.T + noise * torch.eye(len(H), dtype=torch.float64), H)
    each = (gain * sigma).sum(1)
    return [float(each[block.slice].sum()) for block in model.blocks]


def main(options: Options) -> None:
    """All nets, factors and priors; table and figure."""
    x, y = data(options)
    line = torch.linspace(-2.6, 2.6, 131, dtype=torch.float64)[:, None]
    grid, table, curves = torch.cat([line, torch.ones_like(line)], 1), Rows(options.out.with_suffix(".csv")), {}
    table.rows.clear()
    for norm in (False, True):
        sizes = [2, options.hidden, options.hidden, 1]
        network = build(lambda norm=norm, sizes=sizes: mlp(sizes, activation=nn.Tanh, norm=norm).double(), options.seed)
        train(network, x, y, epochs=50 if options.quick else 400, seed=options.seed)
        for factor in FACTORS if norm else (1.0,):
            scaled = rescaled(network, factor)
            for prior in PRIORS:
                row, mean, std = measure(scaled, x, y, prior, grid)
                label = "layer norm" if norm else "plain"
                table.add([{"network": label, "factor": factor, "prior": prior} | row])
                curves[label, factor, prior] = mean, std
                print(table.rows[-1], flush=True)
    draw(table, curves, line[:, 0], (x[:, 0], y[:, 0])).savefig(options.out.with_suffix(".png"), dpi=120)


def draw(table: Rows, curves: dict, x: Tensor, points: tuple[Tensor, Tensor]) -> Figure:
    """Error bars of each prior at factor 1, evidence and error bars in the gap against the factor, dimension by layer."""
    figure = Figure(figsize=(13, 7), layout="constrained")
    panels = figure.subplots(2, 3)
    for axes, label in zip(panels[0], ("plain", "layer norm"), strict=False):
        for prior, colour in COLOURS.items():
            mean, std = curves[label, 1.0, prior]
            axes.plot(x, mean, color=colour, label=prior)
            axes.fill_between(x, mean - 2 * std, mean + 2 * std, color=colour, alpha=0.15, lw=0)
        axes.plot(*points, ".", color="#111827", ms=3)
        axes.set(title=f"{label}: mean and 2 std", ylim=(-4, 4), xlabel="x")
    panels[0][0].legend(frameon=False)
    for axes, (key, title, scale) in zip(
        (panels[0][2], *panels[1][:2]),
        (
            ("log_evidence", "log evidence", "linear"),
            ("std_gap", "std in the gap", "linear"),
            ("precision", "first precision", "log"),
        ),
        strict=True,
    ):
        for prior, colour in COLOURS.items():
            rows = table.where(network="layer norm", prior=prior)
            axes.plot([row["factor"] for row in rows], [row[key] for row in rows], "o-", color=colour, label=prior)
        axes.set(title=f"layer norm: {title}", xscale="log", yscale=scale, xlabel="weights before it, times")
    for place, prior in enumerate(PRIORS):
        (row,) = table.where(network="layer norm", factor=1.0, prior=prior)
        values, start = [float(row[f"dimension_layer_{i}"]) for i in range(3)], 0.0
        for layer, value in enumerate(values):
            panels[1][2].barh(place, value, left=start, color=("#1e3a8a", "#3b82f6", "#bfdbfe")[layer])
            start += value
    panels[1][2].set(yticks=range(3), yticklabels=list(PRIORS), title="layer norm: dimension by layer (dark: first)")
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options))
