"""A small network on digits: exact linearised Laplace against ensembles, dropout, KFAC, diagonal and last layer; turned digits.

``python -m experiments.engine.digits`` uses scikit-learn's digits; ``--data FOLDER --halve`` MNIST. Finished methods are in
``figures/engine_digits_*.csv`` and are not run again.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from ctuq import laplace
from experiments import FIGURES
from experiments.engine.drawing import draw_methods
from experiments.engine.images import Images, Split, halved, load, split
from experiments.engine.methods import CLASSES, Draws, Trainer, by_library, last_layer, of_fit, plain, scores
from experiments.engine.networks import build, mlp, train
from experiments.engine.rows import Row, Rows

ANGLES = (0, 15, 30, 45, 60, 90, 120, 150, 180)


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    data: Path | None = None
    """Folder of MNIST or CIFAR-10; scikit-learn's digits if none."""
    halve: bool = False
    """Average squares of 2 x 2 pixels."""
    train: int = 1000
    held_out: int = 200
    test: int = 1000
    hidden: int = 16
    epochs: int = 40
    members: int = 5
    seeds: int = 2
    quick: bool = False
    """300 data, 8 hidden units, one seed."""
    out: Path = FIGURES


def chosen(options: Options) -> Options:
    """The options, or those of a quick look."""
    if not options.quick:
        return options
    return Options(options.data, options.halve, 300, 60, 100, 8, 60, 2, 1, True, options.out)


def methods(trainer: Trainer, data: Split, seed: int, options: Options, sweeps: Rows) -> dict[str, Callable[[], Draws]]:
    """All methods by name, none run yet."""
    network, (x, y) = trainer(seed), data.train
    model = laplace.linearise(network, x, likelihood=CLASSES)
    fits: dict[str, laplace.Fit] = {}

    def engine(prior: str, log_factor: float | None = 0.0) -> Draws:
        if prior not in fits:
            made = laplace.isotropic(model) if prior == "shared" else None
            fits[prior] = laplace.maximise_evidence(model, y, made, held_out=data.held_out, max_steps=12)
            sweeps.add(sweep_rows(fits[prior], data.name, prior, seed))
        best = fits[prior].sweep.best_log_factor if fits[prior].sweep else 0.0
        return of_fit(fits[prior], seed, best or 0.0 if log_factor is None else log_factor)

    def last() -> Draws:
        return of_fit(laplace.maximise_evidence(last_layer(network, x), y, with_sweep=False, max_steps=12), seed)

    return plain(trainer, network, seed, members=options.members) | {
        "diagonal": lambda: by_library(model, y, "diag", seed),
        "kfac": lambda: by_library(model, y, "kron", seed),
        "last layer": last,
        "laplace": lambda: engine("g"),
        "laplace, shared": lambda: engine("shared"),
        "laplace, held-out": lambda: engine("g", None),
    }


def sweep_rows(fit: laplace.Fit, name: str, prior: str, seed: int) -> list[Row]:
    """What a common factor of the variances does."""
    found = fit.sweep
    assert found is not None and found.log_likelihood is not None
    columns = (found.log_factor, found.log_evidence, found.dimension, found.log_likelihood)
    keys = ("log_factor", "log_evidence", "dimension", "held_out_log_likelihood")
    told: Row = {"data": name, "prior": prior, "seed": seed}
    return [told | dict(zip(keys, map(float, row), strict=True)) for row in zip(*columns, strict=True)]


def main(options: Options) -> None:
    """Run what is not in the table yet, and draw it."""
    options = chosen(options)
    images: Images = load(options.data)
    images = halved(images) if options.halve else images
    stem = options.out / f"engine_digits_{images.name}{'_quick' * options.quick}"
    table, sweeps = Rows(stem.with_suffix(".csv")), Rows(stem.with_name(f"{stem.name}_sweep.csv"))
    for seed in range(options.seeds):
        data = split(images, options.train, options.held_out, options.test, rng=torch.Generator().manual_seed(seed))
        size = data.train[0][0].numel()
        trainer = Trainer(
            lambda dropped, size=size: mlp([size, options.hidden, 10], dropped=dropped),
            lambda make, s, data=data: train(build(make, s), *data.train, epochs=options.epochs, seed=s),
        )
        for name, run in methods(trainer, data, seed, options, sweeps).items():
            if table.where(method=name, seed=seed):
                continue
            begun = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                draws = run()
            told: Row = {"data": data.name, "method": name, "seed": seed, "cpu_seconds": time.process_time() - begun}
            table.add([told | row for row in scores(draws, data, ANGLES, seed)])
            print(table.where(method=name, seed=seed, angle=0)[0], flush=True)
    draw_methods(table, sweeps).savefig(stem.with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main(tyro.cli(Options))
