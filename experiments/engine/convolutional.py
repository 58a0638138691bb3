"""LeNet or ResNet-18: sample-based EM and its posterior against the network, KFAC, ensembles and dropout.

``python -m experiments.engine.convolutional FOLDER`` with MNIST or the binary version of CIFAR-10 (``--halve`` averages squares
of 2 x 2 pixels), ``--network resnet18 --width 8`` at 32 x 32 pixels; finished methods are in ``figures/engine_lenet_*.csv`` and
``figures/engine_resnet18_*.csv``, and are not run again.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import nn
from tyro.conf import Positional

from ctuq import laplace
from experiments import FIGURES
from experiments.engine.digits import ANGLES, sweep_rows
from experiments.engine.drawing import draw_methods
from experiments.engine.images import Split, halved, load, padded, split
from experiments.engine.methods import CLASSES, Draws, Trainer, by_library, of_fit, plain, scores
from experiments.engine.networks import build, lenet, resnet18, train
from experiments.engine.rows import Row, Rows

_RESNET = 32
"""Pixels on a side."""


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    data: Positional[Path]
    network: Literal["lenet", "resnet18"] = "lenet"
    width: int | None = None
    """Channels of the first layer; 8 and 64 by default."""
    halve: bool = False
    train: int = 1000
    held_out: int = 200
    test: int = 1000
    epochs: int = 25
    members: int = 5
    samples: int = 16
    """Of each EM step."""
    seed: int = 0
    skip: tuple[str, ...] = ()
    """Methods that are not run: the library's diagonal of a ResNet-18 of 176,000 weights took more than 18 GiB."""
    quick: bool = False
    """200 data, 4 samples."""
    out: Path = FIGURES


def chosen(options: Options) -> Options:
    """The options, or those of a quick look."""
    if not options.quick:
        return options
    few = {"halve": options.network == "lenet", "train": 200, "held_out": 50, "test": 100, "epochs": 40, "members": 2}
    return replace(options, **few, samples=4)


def methods(
    network: nn.Module, trainer: Trainer, data: Split, options: Options, parts: tuple[Rows, Rows]
) -> dict[str, Callable[[], Draws]]:
    """All methods by name, none run yet; sweep and trajectory of the fit go to ``parts``."""
    (x, y), seed = data.train, options.seed
    model = laplace.linearise(network, x, likelihood=CLASSES)
    fits: list[laplace.Fit] = []

    def engine(log_factor: float | None = 0.0) -> Draws:
        if not fits:
            fit = laplace.maximise_evidence(
                model, y, method="em", samples=options.samples, held_out=data.held_out, max_steps=15
            )
            fits.append(fit)
            parts[0].add(sweep_rows(fit, data.name, "g", seed))
            parts[1].add(trajectory_rows(fit, data.name))
        best = fits[0].sweep.best_log_factor if fits[0].sweep else 0.0
        return of_fit(fits[0], seed, best or 0.0 if log_factor is None else log_factor)

    return plain(trainer, network, seed, members=options.members) | {
        "diagonal": lambda: by_library(model, y, "diag", seed),
        "kfac": lambda: by_library(model, y, "kron", seed),
        "laplace": engine,
        "laplace, held-out": lambda: engine(None),
    }


def trajectory_rows(fit: laplace.Fit, name: str) -> list[Row]:
    """Steps of EM: precision over the g-prior's scale, effective dimension, what its two forms differ by, products."""
    return [
        {
            "data": name,
            "step": i,
            "precision": float((-s.point.psi[0]).exp()),
            "dimension": s.total,
            "gap": s.gap,
            "passes": s.steps,
        }
        for i, s in enumerate(fit.trajectory)
    ]


def main(options: Options) -> None:
    """Run what is not in the table yet, and draw it."""
    options = chosen(options)
    images = load(options.data)
    images = halved(images) if options.halve else images
    images = padded(images, _RESNET) if options.network == "resnet18" else images
    stem = options.out / f"engine_{options.network}_{images.name}{'_quick' * options.quick}"
    table = Rows(stem.with_suffix(".csv"))
    parts = Rows(stem.with_name(f"{stem.name}_sweep.csv")), Rows(stem.with_name(f"{stem.name}_em.csv"))
    data = split(images, options.train, options.held_out, options.test, rng=torch.Generator().manual_seed(options.seed))
    channels, _, size = data.train[0][0].shape
    wide = {} if options.width is None else {"width": options.width}

    def made(dropped: float) -> nn.Module:
        if options.network == "lenet":
            return lenet(channels, size, dropped=dropped, **wide)
        return resnet18(channels, dropped=dropped, **wide)

    trainer = Trainer(
        made,
        lambda make, seed: train(build(make, seed), *data.train, epochs=options.epochs, seed=seed, lr=5e-3),
    )
    network = trainer(options.seed)
    for name, run in methods(network, trainer, data, options, parts).items():
        if name in options.skip or table.where(method=name):
            continue
        begun = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            draws = run()
        told: Row = {"data": data.name, "method": name, "seed": options.seed, "cpu_seconds": time.process_time() - begun}
        table.add([told | row for row in scores(draws, data, ANGLES, options.seed)])
        print(table.where(method=name, angle=0)[0], flush=True)
    draw_methods(table, parts[0]).savefig(stem.with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main(tyro.cli(Options))
