"""The Deep Image Prior of a volume: what its fit takes, and the fit itself, which error bars begin from."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.linops.memory import available_memory
from ctuq.pipeline.running.plan import timed
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.running.threads import take_threads
from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.recon.dip import Data, Generator, generator, trial_step
from ctuq.recon.holdout import split
from ctuq.recon.unet import UNet, UNetOptions
from ctuq.tomo.geometry import VolumeGrid

# Below 26^3, on one thread, torch's convolutions of volumes have a fifth of their speed: a smaller block would tell of that.
BLOCK = 40
# Beside its gradient a step has the total variation, Adam and the running average.
_STEP = 1.1
_KEPT, _SPARED = 1900, 1300
"""Bytes a voxel of the default network's activations and their gradients, kept or made twice (measured at 64^3)."""
_SCRATCH = 150 * 2**20
_TWICE = 1.35


@dataclass(frozen=True, eq=False)
class VolumeFit:
    """A fitted network with what error bars of its volume are made of.

    Parameters
    ----------
    generate : Generator
    best : dict of str to Tensor
        Weights, with a batch axis of 1: ``generate(best)[0]`` is the image, ``generate.module(best)`` what is linearised.
    image : Tensor, shape (z, y, x)
        Attenuation in 1/mm.
    data : Data
        All views: ``data.A``, and ``data.y`` and ``data.weights`` of shape (row, angle, column).
    held : array of int
        Views that were kept out of the fit and stopped it; none where they are too few, and single rays stopped it.
    history : mapping of str to array
        "iteration", "loss" and "held_out_loss" (weighted mean squared residuals) at each look.
    explained : float
        Share of the unseen rays' mean square that the volume explains; negative if it is further off than an empty one.
    """

    generate: Generator
    best: dict[str, Tensor]
    image: Tensor
    data: Data
    held: NDArray[np.int64]
    history: Mapping[str, NDArray]
    explained: float


@dataclass(frozen=True)
class FitCost:
    """What a fit takes.

    Parameters
    ----------
    seconds : float
        Of the network's part of one step, measured.
    bytes : float
    sparing : bool
        Whether activations are made twice, as they do not fit into memory.
    """

    seconds: float
    bytes: float
    sparing: bool


def fit_volume(run: Run[VolumeOptions], data: Data, held: NDArray[np.int64], *, sparing: bool) -> VolumeFit:
    """Fit the network to the views that are not held out; a checkpoint's fit goes on.

    Parameters
    ----------
    run : Run
    data : Data
        All views, without a batch axis.
    held : array of int
        Views to stop the fit by; may be empty.
    sparing : bool
        As in `Generator`; the numbers do not depend on it.

    Raises
    ------
    CtuqError
        If the projections show nothing, or the network finds nothing.
    """
    options, checkpoint = run.options.dip, run.checkpoint
    fit, stop = split(data, held, rng=run.rng)
    generate, start = generator(fit, options, rng=run.rng)
    generate = replace(generate, sparing=sparing)
    checkpoint.threads = take_threads(run.options.threads, lambda: trial_step(generate, start, fit), checkpoint.threads)
    checkpoint.begin()

    begun, state = run.rng.get_state(), None
    try:
        state = run.fit(generate, start, (fit, stop))
    except torch.OutOfMemoryError:
        if sparing:
            raise
        text = "The device has no memory left for the fit's activations: they are made twice, which is slower."
        warnings.warn(text, stacklevel=2)
    if state is None:
        # Out of the handler: while the error is at hand, all that the first attempt had made still lies on the device.
        if run.device.type == "cuda":
            torch.cuda.empty_cache()
        run.rng.set_state(begun)
        generate = replace(generate, sparing=True)
        state = run.fit(generate, start, (fit, stop))
    with torch.no_grad():
        image = generate(state.best)[0]
    explained = 1 - float(state.best_misfit[0] / stop.size[0])
    return VolumeFit(replace(generate, sparing=False), state.best, image, data, held, state.looks, explained)


def fit_cost(grid: VolumeGrid, options: UNetOptions, device: torch.device) -> FitCost:
    """What a step of the fit takes on a grid: measured on a block of it, which the work of the whole is a multiple of."""
    share = max(options.channels) / max(UNetOptions().channels)
    full, spared = (share * each * grid.size for each in (_KEPT, _SPARED))
    left = available_memory(device)
    sparing = left is not None and full > left / 2
    block = tuple(min(n, BLOCK) for n in grid.shape)
    seconds = _STEP * _step_seconds(block, options, device) * grid.size / math.prod(block)
    return FitCost(seconds * (_TWICE if sparing else 1), _SCRATCH + (spared if sparing else full), sparing)


def _step_seconds(shape: tuple[int, ...], options: UNetOptions, device: torch.device) -> float:
    network = UNet(options, torch.Generator().manual_seed(0)).to(device)
    image = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0)).to(device)

    return timed(lambda: network(image).square().mean().backward())
