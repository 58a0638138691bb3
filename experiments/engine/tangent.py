"""How far networks are from their tangent models along posterior draws, by layer and by depth.

``python -m experiments.engine.tangent`` writes ``figures/engine_tangent.{csv,png}``: networks of one to four hidden layers on
the toy regression, g-prior and one shared precision at the evidence's choice, at the training inputs; the distance is relative
to how far the tangent model moves.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure
from torch import nn

from ctuq import laplace
from ctuq.laplace.tangent.gaps import tangent_gaps
from experiments import FIGURES
from experiments.engine import toy
from experiments.engine.networks import build, mlp, train
from experiments.engine.rows import Row, Rows

SCALES = (1e-3, 1e-2, 1e-1, 1.0)
STYLES = {"g": "-", "shared": "--"}


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    depths: tuple[int, ...] = (1, 2, 3, 4)
    width: int = 24
    draws: int = 8
    seed: int = 0
    quick: bool = False
    out: Path = FIGURES / "engine_tangent"


def main(options: Options) -> None:
    """Linearise, sample and compare networks of every depth; table and figure."""
    _, x, y = toy.problem(toy.Options(quick=True, seed=options.seed))
    table = Rows(options.out.with_suffix(".csv"))
    table.rows.clear()
    for hidden in options.depths[:2] if options.quick else options.depths:
        sizes = [1, *[options.width] * hidden, 1]
        network = build(lambda sizes=sizes: mlp(sizes, activation=nn.Tanh).double(), options.seed)
        train(network, x, y, epochs=50 if options.quick else 400, seed=options.seed, lr=5e-3)
        model = laplace.linearise(network, x, parameters=[n for n, _ in network.named_parameters()], offset="taylor")
        for prior in STYLES:
            made = laplace.g_prior(model) if prior == "g" else laplace.isotropic(model)
            fit = laplace.maximise_evidence(model, y, made, with_sweep=False)
            deviations = laplace.posterior(fit).weights(options.draws, rng=torch.Generator().manual_seed(options.seed))
            for gap in tangent_gaps(model, deviations, scales=SCALES):
                told: Row = {"hidden_layers": hidden, "prior": prior, "moved": gap.moved, "depth": gap.depth}
                medians = (SCALES, gap.distance.median(1).values.tolist(), gap.movement.median(1).values.tolist())
                table.add([told | {"scale": s, "distance": d, "movement": m} for s, d, m in zip(*medians, strict=True)])
    draw(table).savefig(options.out.with_suffix(".png"), dpi=120)
    for row in table.where(scale=1.0, moved="all"):
        print(row)


def draw(table: Rows) -> Figure:
    """Distance against the scale of the draw, by layer, and by depth, for each network and prior."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for hidden in sorted({int(row["hidden_layers"]) for row in table.rows}):
        for prior, style in STYLES.items():
            look = {"color": f"C{hidden - 1}", "ls": style, "marker": ".", "label": f"{hidden} hidden, {prior} prior"}
            rows = table.where(hidden_layers=hidden, prior=prior)
            scales = [row for row in rows if row["moved"] == "all"]
            whole = [row for row in rows if row["scale"] == 1 and str(row["moved"]).endswith("weight")]
            alone = [row for row in whole if not str(row["moved"]).startswith("up to")]
            below = [alone[0], *(row for row in whole if str(row["moved"]).startswith("up to")), scales[-1]]
            panels[0].plot([row["scale"] for row in scales], [row["distance"] for row in scales], **look)
            for axes, line in zip(panels[1:], (alone, below), strict=True):
                axes.plot([int(row["depth"]) / 2 for row in line], [max(float(row["distance"]), 1e-4) for row in line], **look)
    panels[0].set(title="all weights move", xlabel="fraction of a posterior draw", xscale="log", yscale="log")
    panels[0].set_ylabel("|network - tangent| / |movement of the tangent|")
    panels[1].set(title="one weight matrix moves (floor 1e-4)", xlabel="layer", xticks=range(5), yscale="log")
    panels[2].set(title="all up to a layer move (half: its bias)", xlabel="layer", xticks=range(5), yscale="log")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    for axes in panels:
        axes.grid(alpha=0.3)
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options))
