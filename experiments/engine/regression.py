"""Small regression sets, five splits each: Laplace of one network by ctuq and by laplace-torch, and a Gaussian process by both.

``python -m experiments.engine.regression --folder FOLDER`` with the folder of UCI sets (see ``experiments.uci``); without it
scikit-learn's diabetes alone. Writes ``figures/engine_regression.{csv,png}``; needs the extra ``baselines``. Finished splits
are not run again; ``--draw`` draws the table.

laplace-torch is centred at the network's output and given the noise of the training residuals; with its precision and that
noise ctuq's own posterior is the row "ctuq, as laplace-torch", so that ``std_difference`` compares the arithmetic alone. In the
same way the row "gpytorch" has the hyperparameters of "gp". ctuq's own rows learn noise and precision by the evidence.
"""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor, nn

from ctuq import laplace
from ctuq.baselines.networks import laplace_torch
from ctuq.gp import GaussianProcess, Matern32, maximise_on_subsets
from ctuq.scores.gaussian import Z95
from experiments import FIGURES
from experiments.engine.networks import build, mlp, train
from experiments.engine.rows import Row, Rows
from experiments.uci.contestants import Budget, contestants
from experiments.uci.sets import Split, load

SETS = ("diabetes", "yacht", "autompg", "housing", "energy", "concrete")
COLOURS = {
    "network": "#111827",
    "ctuq, g-prior": "#1d4ed8",
    "ctuq, shared": "#60a5fa",
    "ctuq, as laplace-torch": "#0891b2",
    "laplace-torch, full": "#9333ea",
    "laplace-torch, kron": "#c2410c",
    "laplace-torch, diag": "#a16207",
    "gp": "#047857",
    "gpytorch": "#9ca3af",
}
_FAR = 3.0
Prediction = tuple[Tensor, Tensor]
"""Mean and standard deviation, noise included, of the test targets (m,)."""


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    folder: Path | None = None
    sets: tuple[str, ...] = SETS
    splits: int = 5
    hidden: int = 50
    epochs: int = 200
    draw: bool = False
    out: Path = FIGURES / "engine_regression"


def data_of(name: str, split: int, folder: Path | None) -> Split:
    """A tenth held out, of diabetes at random, of the sets in the folder as their masks say; columns standardised."""
    if name != "diabetes":
        assert folder is not None
        return load(folder, name, split, 10**6, 0)
    from sklearn.datasets import load_diabetes

    found = load_diabetes()
    table = np.column_stack([found.data, found.target])
    order = np.random.default_rng(split).permutation(len(table))
    test, train_rows = table[order[: len(table) // 10]], table[order[len(table) // 10 :]]
    inside, outside = (torch.tensor((part - train_rows.mean(0)) / train_rows.std(0)) for part in (train_rows, test))
    return Split(inside[:, :-1], inside[:, -1], outside[:, :-1], outside[:, -1])


def methods(data: Split, split: int, options: Options) -> dict[str, Callable[[], Prediction]]:
    """All by name, none run yet; what several share is made once."""
    x, y, new = data.x, data.y[:, None], data.x_test
    network = build(lambda: mlp([x.shape[1], options.hidden, 1], activation=nn.Tanh).double(), split)
    train(network, x, y, epochs=options.epochs, seed=split, decay=1e-3)
    with torch.no_grad():
        noise, output = float((network(x) - y).square().mean()), network(new)[:, 0]
    names = [name for name, _ in network.named_parameters()]

    def fitted(likelihood: laplace.Gaussian, offset: str, **settings) -> laplace.Posterior:
        model = laplace.linearise(network, x, likelihood=likelihood, parameters=names, offset=offset)
        prior = laplace.g_prior(model) if settings.pop("g", False) else laplace.isotropic(model)
        fit = laplace.maximise_evidence(model, y, prior, method="dense", with_sweep=False, **settings)
        return laplace.posterior(fit)

    def by_evidence(*, g: bool) -> Prediction:
        post = fitted(laplace.Gaussian(), "taylor", g=g)
        found = post.predict(new)
        assert not isinstance(found, laplace.Classes)
        return found.mean[:, 0], found.total_std[:, 0]

    known, learned = laplace.Gaussian(noise), {}

    def by_library(structure: str) -> Prediction:
        model = laplace.linearise(network, x, likelihood=known, parameters=names, offset="delta")
        found = laplace_torch(model, y, structure=structure)
        learned[structure] = found.precision
        mean, variance = found.library(new)
        return mean.detach()[:, 0].double(), (variance.detach().reshape(-1).double() + noise).sqrt()

    def as_library() -> Prediction:
        psi = torch.tensor([-math.log(learned["full"])], dtype=torch.float64)
        point = laplace.Point(psi, torch.tensor([noise], dtype=torch.float64))
        std = fitted(known, "delta", start=point, max_steps=0).std(new)[:, 0]
        return output, (std.square() + noise).sqrt()

    rng = torch.Generator().manual_seed(split)
    processes: list[GaussianProcess] = []

    def process() -> Prediction:
        inputs = x.shape[1]
        found = maximise_on_subsets(Matern32.of(1.0, math.sqrt(inputs), inputs), 0.05, x, data.y, rows=2000, rng=rng)
        processes.append(GaussianProcess(found.kernel, found.sigma2))
        told = contestants(Budget())["cholesky"](processes[0], data, rng)
        return told.mean, told.std

    def peer() -> Prediction:
        told = contestants(Budget(deviations=len(new)))["gpytorch_tight"](processes[0], data, rng)
        return told.mean, told.std

    return {
        "network": lambda: (output, torch.full_like(output, noise**0.5)),
        "ctuq, g-prior": lambda: by_evidence(g=True),
        "ctuq, shared": lambda: by_evidence(g=False),
        "laplace-torch, full": lambda: by_library("full"),
        "ctuq, as laplace-torch": as_library,
        "laplace-torch, kron": lambda: by_library("kron"),
        "laplace-torch, diag": lambda: by_library("diag"),
        "gp": process,
        "gpytorch": peer,
    }


SAME_AS = {"ctuq, as laplace-torch": "laplace-torch, full", "gpytorch": "gp"}


def main(options: Options) -> None:
    """Run what is not in the table yet, and draw it."""
    table = Rows(options.out.with_suffix(".csv"))
    sets = options.sets if options.folder else ("diabetes",)
    for name in () if options.draw else sets:
        for split in range(options.splits):
            if table.where(set=name, split=split):
                continue
            table.add(measured(name, split, options))
            for row in table.where(set=name, split=split):
                print(row, flush=True)
    draw(table).savefig(options.out.with_suffix(".png"), dpi=120)


def measured(name: str, split: int, options: Options) -> list[Row]:
    """Scores of every method on one split."""
    data = data_of(name, split, options.folder)
    rows, predicted = [], {}
    for method, run in methods(data, split, options).items():
        begun = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mean, std = predicted[method] = run()
        seconds, z = time.process_time() - begun, (data.y_test - mean) / std
        row: Row = {"set": name, "split": split, "method": method, "n": len(data.x), "cpu_seconds": seconds}
        row |= {"rmse": float((data.y_test - mean).square().mean().sqrt())}
        row |= {"nll": float((0.5 * z.square() + std.log()).mean()) + 0.5 * math.log(2 * math.pi)}
        row |= {"cover_95": float((z.abs() < Z95).double().mean())}
        other = predicted.get(SAME_AS.get(method, ""))
        row["std_difference"] = math.nan if other is None else float((std / other[1] - 1).abs().max())
        rows.append(row)
    return rows


def draw(table: Rows) -> Figure:
    """Error, negative log-likelihood and CPU time of each method on each set: every split, and the mean."""
    sets = list(dict.fromkeys(str(row["set"]) for row in table.rows))
    figure = Figure(figsize=(12, 1.6 + 1.1 * len(sets)), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for place, (method, colour) in enumerate(COLOURS.items()):
        for line, name in enumerate(sets):
            height = line + 0.8 * (place / (len(COLOURS) - 1) - 0.5)
            rows = table.where(set=name, method=method)
            for axes, key in zip(panels, ("rmse", "nll", "cpu_seconds"), strict=True):
                if (method, key) == ("network", "cpu_seconds"):
                    continue  # a constant
                values = [min(float(row[key]), _FAR) if key == "nll" else float(row[key]) for row in rows]
                axes.plot(values, [height] * len(values), ".", color=colour, ms=4, alpha=0.5)
                label = method if line == 0 and key == "rmse" else None
                axes.plot(np.mean(values), height, "D", color=colour, ms=4, label=label)
    panels[0].set(yticks=range(len(sets)), yticklabels=[f"{s} ({table.where(set=s)[0]['n']})" for s in sets], xlabel="RMSE")
    panels[1].set(xlabel=f"negative log-likelihood (nats, at most {_FAR:g})")
    panels[2].set(xlabel="CPU seconds", xscale="log")
    for axes in panels:
        axes.grid(alpha=0.3, axis="x")
        for line in range(1, len(sets)):
            axes.axhline(line - 0.5, color="#d1d5db", lw=0.8)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options))
