"""The dear part, once a scan: the network's fit and its linear model, without systematic errors; kept in files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import ctuq
from ctuq.pipeline.bars import linear_model
from ctuq.recon.dip import Data, dip, generator
from ctuq.recon.holdout import split, views_to_hold
from ctuq.recon.start import DIPOptions
from ctuq.uncertainty.model.factor import rank_of
from ctuq.uncertainty.model.linear import ImageModel
from experiments.systematics.scans import Subject

KEPT = Path("runs") / "systematics"


@dataclass(frozen=True, eq=False)
class Kept:
    """A fit, and the plain linear model at it; ``model`` is None where only the image is wanted."""

    image: Tensor
    model: ImageModel | None
    y: Tensor
    weights: Tensor
    held: NDArray[np.int64]

    def data(self, subject: Subject) -> Data:
        """The rays with their transform."""
        A = ctuq.ray_transform(subject.grid, subject.scan.geometry, backend="matrix")
        return Data(A, self.y, self.weights)


def fitted(subject: Subject, folder: Path = KEPT, *, less: Tensor | None = None, mark: str = "", bars: bool = True) -> Kept:
    """From its file, or made; ``less`` is taken from the rays before the fit."""
    path = folder / f"{subject.name}{mark}.pt"
    if path.is_file():
        return torch.load(path, weights_only=False)
    made = _made(subject, less, bars)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(made, path.with_suffix(".partial"))
    path.with_suffix(".partial").rename(path)
    return made


def _made(subject: Subject, less: Tensor | None, bars: bool) -> Kept:
    rng, scan = torch.Generator().manual_seed(0), subject.scan
    y = torch.tensor(scan.projections)
    weights = torch.ones_like(y) if scan.weights is None else torch.tensor(scan.weights)
    A = ctuq.ray_transform(subject.grid, scan.geometry, backend="matrix")
    held, _ = views_to_hold(scan, None)
    data = Data(A, y if less is None else y - less.to(y), weights)
    fit, stop = split(data, held, rng=rng)
    options = DIPOptions()
    generate, start = generator(fit, options, rng=rng)
    *_, state = dip(generate, start, fit, stop, options)
    image = generate(state.best)[0].detach()
    rank = rank_of(image.numel(), y.numel())
    # The rays as they were measured: what was taken from them is an estimate of what the model then has as unknowns.
    whole = Data(A, y, weights)
    model = linear_model(whole, generate, state.best, prior="isotropic", rank=rank, rng=rng) if bars else None
    return Kept(image, model, y, weights, held)
