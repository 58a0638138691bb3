"""How far a LeNet and ctuq's U-Net are from their tangent models along posterior draws, by fraction, layer and depth.

``python -m experiments.engine.tangent_deep`` writes ``figures/engine_tangent_deep.{csv,png}``. A draw delta of the posterior
moves the weights to ``theta_hat + t delta``; what is measured is ``|f - f_lin| / |t J delta|`` at the training inputs, for a
classifier of its logits, for the U-Net of its image. Finished networks are not run again; ``--draw`` draws the table.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure

from ctuq import laplace
from ctuq.laplace.tangent.gaps import tangent_gaps
from experiments import FIGURES
from experiments.engine.deep import LARGE, QUICK, Deep, exact_fit, priors
from experiments.engine.rows import Row, Rows

SCALES = (1e-3, 1e-2, 1e-1, 0.3, 1.0)
STYLES = {"g": "-", "shared": "--", "each layer": ":"}


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    draws: int = 8
    only: tuple[str, ...] = tuple(LARGE)
    priors: tuple[str, ...] = tuple(STYLES)
    seed: int = 0
    quick: bool = False
    draw: bool = False
    out: Path = FIGURES / "engine_tangent_deep"


def main(options: Options) -> None:
    """Fit, draw and compare what is not in the table yet; draw it."""
    table = Rows(options.out.with_suffix(".csv"))
    networks = QUICK if options.quick else {name: LARGE[name] for name in options.only}
    for name, make in ({} if options.draw else networks).items():
        missing = [prior for prior in options.priors if not table.where(network=name, prior=prior)]
        deep = make(options.seed) if missing else None
        for prior in missing:
            assert deep is not None
            table.add(measured(deep, prior, options))
    for row in table.where(scale=1.0, moved="all"):
        print(row)
    draw(table).savefig(options.out.with_suffix(".png"), dpi=120)


def measured(deep: Deep, prior: str, options: Options) -> list[Row]:
    """Medians over draws."""
    model = deep.linearise(deep.network)
    fit = exact_fit(model, deep.y, priors(deep, model)[prior], "" if options.quick else f"{deep.name}-{prior}-{options.seed}")
    deviations = laplace.posterior(fit).weights(options.draws, rng=torch.Generator().manual_seed(options.seed))
    rows: list[Row] = []
    for gap in tangent_gaps(model, deviations, scales=SCALES):
        told: Row = {"network": deep.name, "prior": prior, "moved": gap.moved, "depth": gap.depth}
        medians = (SCALES, gap.distance.median(1).values.tolist(), gap.movement.median(1).values.tolist())
        rows += [told | {"scale": s, "distance": d, "movement": m} for s, d, m in zip(*medians, strict=True)]
    return rows


def draw(table: Rows) -> Figure:
    """Distance against the fraction of a draw, by layer, and by depth: a row for each network."""
    names = list(dict.fromkeys(str(row["network"]) for row in table.rows))
    figure = Figure(figsize=(13, 3.9 * len(names)), layout="constrained")
    for place, (panels, name) in enumerate(zip(figure.subplots(len(names), 3, squeeze=False), names, strict=True)):
        own = table.where(network=name)
        layers = 1 + max(int(row["depth"]) for row in own)
        for colour, (prior, style) in enumerate(STYLES.items()):
            look = {"color": f"C{colour}", "ls": style, "marker": ".", "label": f"prior: {prior}"}
            rows = [row for row in own if row["prior"] == prior]
            if not rows:
                continue
            whole = [row for row in rows if row["moved"] == "all"]
            last = [row for row in rows if row["scale"] == 1.0]
            alone = [row for row in last if row["moved"] != "all" and not str(row["moved"]).startswith("up to")]
            below = [alone[0], *(row for row in last if str(row["moved"]).startswith("up to")), whole[-1]]
            panels[0].plot([row["scale"] for row in whole], [row["distance"] for row in whole], **look)
            for axes, line in zip(panels[1:], (alone, below), strict=True):
                axes.plot(range(1, layers + 1), [max(float(row["distance"]), 1e-4) for row in line], **look)
        panels[0].set(title=f"{name}: all weights move", xlabel="fraction of a posterior draw", xscale="log", yscale="log")
        panels[0].set_ylabel("|network - tangent| / |movement of the tangent|")
        panels[1].set(title="one layer's weights move (floor 1e-4)", xlabel="layer", yscale="log")
        panels[2].set(title="all weights up to a layer move", xlabel="layer", yscale="log")
        for axes in panels:
            axes.grid(alpha=0.3)
        if place == 0:
            figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options))
