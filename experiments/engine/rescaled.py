"""One precision across normalisation layers: a small U-Net with group normalisation, its weights before it multiplied.

``python -m experiments.engine.rescaled`` writes ``figures/engine_rescaled.{csv,png}``. The network's function stays as it is,
so that a sound prior gives the same evidence and the same error bars. Finished rows are not run again; ``--draw`` draws them.
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor, nn

from ctuq import laplace
from ctuq.recon.unet import UNetOptions
from experiments import FIGURES
from experiments.engine.deep import Deep, exact_fit, priors, scan
from experiments.engine.rows import Row, Rows

FACTORS, EPSILON = (0.1, 1.0, 10.0), 1e-12
NETWORK = UNetOptions((16, 16), (4,), groups=4)
COLOURS = {"shared": "#c2410c", "each layer": "#a16207", "g": "#1d4ed8"}


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    seed: int = 0
    draws: int = 128
    quick: bool = False
    draw: bool = False
    out: Path = FIGURES / "engine_rescaled"


def rescaled(network: nn.Module, names: tuple[str, ...], factor: float) -> nn.Module:
    """A copy in which these weights and the biases beside them are multiplied, and normalisations hardly round."""
    copy, beside = deepcopy(network), {name.removesuffix("weight") + "bias" for name in names}
    for layer in copy.modules():
        if isinstance(layer, nn.GroupNorm):
            layer.eps = EPSILON
    with torch.no_grad():
        for name, value in copy.named_parameters():
            if name in names or name in beside:
                value.mul_(factor)
    return copy


def measured(deep: Deep, names: tuple[str, ...], factor: float, prior: str, options: Options) -> tuple[Row, Tensor, Tensor]:
    """Evidence, dimension and noise; the network's image and its standard deviation from draws."""
    model = deep.linearise(rescaled(deep.network, names, factor))
    fit = exact_fit(model, deep.y, priors(deep, model)[prior], "")
    image, jacobian = model.at()
    weights = laplace.posterior(fit).weights(options.draws, rng=torch.Generator().manual_seed(options.seed))
    std = jacobian(weights.to(jacobian.domain.dtype)).double().square().mean(0).sqrt()
    row: Row = {"factor": factor, "prior": prior, "log_evidence": fit.log_evidence, "sigma": float(fit.sigma2.sqrt())}
    return row | {"dimension": fit.total_dimension.value, "first_variance": float(fit.psi[0].exp())}, image, std


def main(options: Options) -> None:
    """Run what is not in the table yet, and draw it."""
    table = Rows(options.out.with_suffix(".csv"))
    missing = [(p, f) for p in COLOURS for f in FACTORS if not table.where(prior=p, factor=f)]
    if missing and not options.draw:
        deep = scan(options.seed, size=20, views=16, network=NETWORK, iterations=100 if options.quick else None)
        names = deep.linearise(deep.network).scale_free
        first, _ = deep.linearise(rescaled(deep.network, names, 1.0)).at()
        for prior, factor in missing:
            row, image, std = measured(deep, names, factor, prior, options)
            row["function_changed"] = float((image - first).norm() / first.norm())
            row["std_over_image"] = float(std.square().mean().sqrt() / first.double().square().mean().sqrt())
            table.add([row])
            print(table.rows[-1], flush=True)
    draw(table).savefig(options.out.with_suffix(".png"), dpi=120)


def draw(table: Rows) -> Figure:
    """Evidence, dimension and error bars against the factor."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    panels = figure.subplots(1, 3)
    shown = {
        "log_evidence": "log evidence - at factor 1",
        "dimension": "effective dimension",
        "std_over_image": "std / image (rms)",
    }
    for axes, (key, title) in zip(panels, shown.items(), strict=True):
        for prior, colour in COLOURS.items():
            rows = sorted(table.where(prior=prior), key=lambda row: float(row["factor"]))
            less = float(table.where(prior=prior, factor=1.0)[0][key]) if key == "log_evidence" else 0.0
            axes.plot(
                [row["factor"] for row in rows], [float(row[key]) - less for row in rows], "o-", color=colour, label=prior
            )
        axes.set(title=title, xscale="log", xlabel="weights before normalisation, times")
        axes.grid(alpha=0.3)
    panels[0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options))
