"""Reconstructions that judge a design: the same for every strategy, from measured views alone."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ctuq.design.models.model import Measurements
from ctuq.errors import InputError
from ctuq.recon import tv
from ctuq.recon.dip import DIPOptions, dip, generator
from ctuq.recon.holdout import split

METHODS = ("tv", "dip")

Imaging = Callable[[Measurements], Tensor]
"""Measured views to an image (y, x), 1/mm."""


def _tv_image(measured: Measurements, *, strength: float = 1.0) -> Tensor:
    """Total variation, with `ctuq.recon.tv`'s rule for the weight."""
    A = measured.A.subset(measured.views)
    return tv(A, measured.y, weights=measured.weights, strength=strength)


def _dip_image(measured: Measurements, *, options: DIPOptions) -> Tensor:
    """A Deep Image Prior fitted from nothing, stopped by one ray in twenty that it does not see; never by a truth."""
    rng = torch.Generator().manual_seed(0)
    fit, stop = split(measured.data, np.zeros(0, np.int64), rng=rng)
    generate, start = generator(fit, options, rng=rng)
    *_, state = dip(generate, start, fit, stop, options)
    return generate(state.best)[0].detach()


def imaging(method: str, *, strength: float = 1.0, dip_options: DIPOptions | None = None) -> Imaging:
    """A method by name.

    Raises
    ------
    InputError
        If there is no such method.
    """
    if method == "tv":
        return partial(_tv_image, strength=strength)
    if method == "dip":
        return partial(_dip_image, options=DIPOptions() if dip_options is None else dip_options)
    raise InputError(f"There is no method {method!r} to judge designs by; choose tv or dip.")
