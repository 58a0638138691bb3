"""Two networks with layers: a small LeNet on scikit-learn's digits, and ctuq's U-Net fitted to a simulated scan.

Both are small enough for the exact evidence and the exact posterior, which sampled ones are compared with.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ctuq import laplace
from ctuq.laplace.fit import Fit, maximise
from ctuq.laplace.system.routes import assembled, problem_of
from ctuq.recon.dip import Data, DIPOptions, dip, generator
from ctuq.recon.unet import UNetOptions
from ctuq.tomo import ray_transform
from ctuq.tomo.simulate import phantom_scan
from experiments import ROOT
from experiments.engine.images import Split, load, split
from experiments.engine.methods import CLASSES
from experiments.engine.networks import build, lenet, train

WIDTH, EPOCHS = 4, 40
TRAIN, HELD_OUT, TEST = 300, 100, 600
KEPT = ROOT / "runs" / "engine_deep"
SIZE, VIEWS, NOISE = 28, 20, 0.05


@dataclass(frozen=True, eq=False)
class Deep:
    """A trained network, what makes the tangent model of it or of a changed copy, and the targets.

    Parameters
    ----------
    name : str
    network : nn.Module
    linearise : callable
        The tangent model of a module; without its warnings, which are what is studied here.
    y : Tensor
    split : Split, optional
        Of a classifier's data.
    """

    name: str
    network: nn.Module
    linearise: Callable[[nn.Module], laplace.LinearModel]
    y: Tensor
    split: Split | None = None


def digits(seed: int, *, quick: bool = False) -> Deep:
    """A LeNet of 1,164 weights in float64, trained on 300 digits of 8 x 8 pixels (40 if quick)."""
    sizes = (40, 20, 50) if quick else (TRAIN, HELD_OUT, TEST)
    data = split(load(None), *sizes, rng=torch.Generator().manual_seed(seed))
    data = replace(data, train=_double(data.train), held_out=_double(data.held_out), test=_double(data.test))
    x, y = data.train
    network = train(
        build(lambda: lenet(1, 8, width=WIDTH).double(), seed), x, y, epochs=10 if quick else EPOCHS, seed=seed, lr=5e-3
    )
    return Deep("LeNet", network, _quietly(lambda module: laplace.linearise(module, x, likelihood=CLASSES)), y, data)


def scan(seed: int, *, groups: int = 0, quick: bool = False) -> Deep:
    """The U-Net of ctuq, fitted to all rays of a simulated glyph at 28 x 28 pixels with 20 views and 5 % noise.

    With ``groups`` it has group normalisation and starts at random; without, as always, from the weights that ctuq ships. If
    quick it is a network of 700 weights, from random ones, and there are 8 views of 16 x 16 pixels.
    """
    size, views = (16, 8) if quick else (SIZE, VIEWS)
    made = phantom_scan("glyph", size, np.arange(views) * np.pi / views, noise=NOISE, seed=seed)
    assert made.grid is not None
    A = ray_transform(made.grid, made.geometry, backend="matrix")
    y = torch.tensor(made.projections)
    data = Data(A, y[None], torch.ones_like(y)[None])
    options = replace(DIPOptions(), patience=1.0)
    if groups or quick:
        options = replace(options, network=UNetOptions(groups=groups), start="random")
    if quick:
        options = replace(options, network=UNetOptions((4, 4), (2,), groups), iterations=100)
    generate, start = generator(data, options, rng=torch.Generator().manual_seed(seed))
    *_, state = dip(generate, start, data, data, options)
    network, inputs = generate.module(state.average)
    observe = float(generate.scale[0]) * A
    name = "U-Net, normalised" if groups else "U-Net"
    return Deep(name, network, _quietly(lambda m: laplace.linearise(m, inputs, observe=observe, offset="taylor")), y)


NETWORKS: dict[str, Callable[..., Deep]] = {"U-Net": scan, "LeNet": digits}


def priors(deep: Deep, model: laplace.LinearModel) -> dict[str, laplace.DiagonalPrior | laplace.FilterProcess]:
    """The g-prior, one precision, and one a layer: of the U-Net ctuq's own, whose filters' taps are correlated."""
    each = laplace.layerwise(model) if deep.split else laplace.FilterProcess(model)
    g = laplace.g_prior(model, rng=torch.Generator().manual_seed(0))
    return {"g": g, "shared": laplace.isotropic(model), "each layer": each}


def exact_fit(model: laplace.LinearModel, y: Tensor, prior: laplace.DiagonalPrior | laplace.FilterProcess, name: str) -> Fit:
    """Where the exact evidence is largest, with the features assembled; what the search ends at is kept by this name.

    Parameters
    ----------
    model : LinearModel
    y : Tensor
    prior : Prior
    name : str
        Empty: it is not kept.
    """
    path = KEPT / f"{name.replace(' ', '_').replace(',', '')}.json"
    start = None
    if name and path.is_file():
        told = json.loads(path.read_text())
        start = laplace.Point(torch.tensor(told["psi"]).double(), torch.tensor(told["sigma2"]).double())
    problem = assembled(problem_of(model, y, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # modes of labels at points on the way
        fit = maximise(problem, prior, model=model, method="dense", start=start, max_steps=60 if start is None else 0)
    if name and start is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"psi": fit.psi.tolist(), "sigma2": fit.sigma2.tolist()}))
    return fit


def _double(part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return part[0].double(), part[1]


def _quietly(make: Callable[[nn.Module], laplace.LinearModel]) -> Callable[[nn.Module], laplace.LinearModel]:
    def made(module: nn.Module) -> laplace.LinearModel:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make(module)

    return made
