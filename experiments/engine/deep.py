"""Two networks with layers: a small LeNet on scikit-learn's digits, and ctuq's U-Net fitted to a simulated scan.

Both are small enough for the exact evidence and the exact posterior, which sampled ones are compared with.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ctuq import laplace
from ctuq.laplace.fit import Fit, maximise
from ctuq.laplace.system.solver_choice import assembled, problem_of
from ctuq.recon.dip import Data, DIPOptions, dip, generator
from ctuq.recon.unet import UNetOptions
from ctuq.tomo import ray_transform
from ctuq.tomo.simulate import phantom_scan
from experiments import ROOT
from experiments.engine.images import Split, load, split
from experiments.engine.methods import CLASSES
from experiments.engine.networks import build, lenet, train

HELD_OUT, TEST, EPOCHS, NOISE = 100, 600, 150, 0.05
KEPT = ROOT / "runs" / "engine_deep"


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


def digits(seed: int, *, count: int = 200, width: int = 3) -> Deep:
    """A LeNet of 699 weights in float64, trained on 200 digits of 8 x 8 pixels; it gets 85 % of others right.

    One of width 2 does not learn, from its first weights of seed 0.
    """
    data = split(load(None), count, HELD_OUT, TEST, rng=torch.Generator().manual_seed(seed))
    data = replace(data, train=_double(data.train), held_out=_double(data.held_out), test=_double(data.test))
    x, y = data.train
    network = build(lambda: lenet(1, 8, width=width).double(), seed)
    train(network, x, y, epochs=EPOCHS, seed=seed, lr=5e-3)
    return Deep("LeNet", network, _quietly(lambda module: laplace.linearise(module, x, likelihood=CLASSES)), y, data)


def scan(
    seed: int, *, size: int = 28, views: int = 20, network: UNetOptions | None = None, iterations: int | None = None
) -> Deep:
    """The U-Net of ctuq, fitted to all rays of a simulated glyph with 5 % noise.

    Another ``network`` starts at random; ctuq's own starts, as always, from the weights that ctuq ships.
    """
    made = phantom_scan("glyph", size, np.arange(views) * np.pi / views, noise=NOISE, seed=seed)
    assert made.grid is not None
    A = ray_transform(made.grid, made.geometry, backend="matrix")
    y = torch.tensor(made.projections)
    data = Data(A, y[None], torch.ones_like(y)[None])
    options = replace(DIPOptions(), patience=1.0, iterations=iterations)
    if network is not None:
        options = replace(options, network=network, start="random")
    generate, start = generator(data, options, rng=torch.Generator().manual_seed(seed))
    *_, state = dip(generate, start, data, data, options)
    module, inputs = generate.module(state.average)
    observe = float(generate.scale[0]) * A
    return Deep("U-Net", module, _quietly(lambda m: laplace.linearise(m, inputs, observe=observe, offset="taylor")), y)


Networks = dict[str, Callable[[int], Deep]]
LARGE: Networks = {"U-Net": scan, "LeNet": digits}
SMALL: Networks = {
    "U-Net": partial(scan, size=20, views=16, network=UNetOptions((16, 16), (4,))),
    "LeNet": digits,
}
QUICK: Networks = {"U-Net": partial(scan, size=16, views=8, network=UNetOptions((4, 4), (2,)), iterations=100)}


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
