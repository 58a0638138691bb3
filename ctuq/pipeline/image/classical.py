"""Classical reconstructions: what was asked for, or what the deep image prior is shown beside."""

import logging
import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.pipeline.bars import asks_for
from ctuq.pipeline.image.freed import of_any_flux
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.views import tensors
from ctuq.recon import CLASSICAL, tv
from ctuq.recon.dip import Data
from ctuq.recon.holdout import split, views_to_hold
from ctuq.recon.strength import STRENGTHS, chosen_strength
from ctuq.stages import Under
from ctuq.tomo.scan import Scan

# Over the network's misfit of held-out rays: less is chance.
_BETTER = 0.9
_TOLD = (
    "Total variation foretells the held-out rays better than the network does (its rms error is {:.0%} less): look at its "
    "image beside this one, or take --method tv."
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Smoothness:
    """Of total variation, as held-out rays like it best; None where no views can be held out.

    Parameters
    ----------
    strength : float, optional
    misfit : float
        Of held-out rays; infinite where these stop no network.
    """

    strength: float | None = None
    misfit: float = math.inf

    def told(self, network: float) -> tuple[str, ...]:
        """What the user should know beside a network with this misfit of the same rays."""
        return (_TOLD.format(1 - math.sqrt(self.misfit / network)),) if self.misfit < _BETTER * network else ()


def smoothness(run: Run[ReconstructOptions], data: Data, scan: Scan, held: NDArray[np.int64]) -> Smoothness:
    """Of total variation of all views, chosen on views to hold out, whether these calibrate error bars or not."""
    if run.options.method not in ("dip", "tv"):
        return Smoothness()
    views = held if len(held) else views_to_hold(scan, None)[0]
    if not len(views):
        return Smoothness()
    fit, stop = split(data, views, rng=run.rng)
    stop = of_any_flux(stop) if asks_for("flux", run.options.systematics, scan) else stop
    with run.clock("classical"):
        strength, misfit = run.stages.once("smoothness", partial(chosen_strength, fit, stop))
    _log.info("Total variation of strength %g, by %d held-out views.", strength, len(views))
    return Smoothness(strength, misfit if len(held) else math.inf)


def smooth_image(run: Run[ReconstructOptions], data: Data, image: NDArray[np.float32], strength: float | None) -> Tensor:
    """By total variation of the usual strength, in which an edge is an edge; ``image`` is that of another strength.

    What pixels cannot draw is told from it, whose constant was measured so: from images as held-out rays like them unseen rays
    of ta and the walnut are foretold as well, those of tb and the tooth by 0.07 and 0.03 nats worse.
    """
    if strength in (None, STRENGTHS[0]):
        return torch.as_tensor(image, device=data.y.device)
    with run.clock("classical"):
        return run.stages.once("smooth tv", partial(tv, data.A, data.y, weights=data.weights))


def classical(
    run: Run[ReconstructOptions],
    data: Data,
    scan: Scan,
    *,
    strength: float | None = None,
    less: Tensor | None = None,
    mark: str = "freed",
) -> dict[str, NDArray[np.float32]]:
    """The method that was asked for; beside a DIP, FBP and TV to compare with.

    FBP takes the rays as they were measured: it makes each pixel of them by itself, and needs no account of what lies outside.

    Parameters
    ----------
    run, scan
    data : Data
        What lies inside.
    strength : float, optional
        Of total variation.
    less : Tensor, optional
        Systematic errors, of which the rays of ``data`` are free: they are taken from what was measured.
    mark : str
        Under which such images are kept.
    """
    stages = run.stages if less is None else Under(run.stages, mark)
    names = ("fbp", "tv") if run.options.bars or run.options.method == "dip" else (run.options.method,)
    images = {}
    with run.clock("classical"):
        for i, name in enumerate(names):
            run.tell("Classical reconstructions", i, len(names), name)
            y = data.y if name != "fbp" else tensors(scan, run.device)[0] - (0.0 if less is None else less)
            given = {"strength": strength} if name == "tv" else {}
            given |= run.options.steps if name == run.options.method else {}
            image = stages.once(name, partial(CLASSICAL[name], data.A, y, weights=data.weights, **given))
            images[name] = image.cpu().numpy().astype(np.float32)
        run.tell("Classical reconstructions", len(names), len(names))
    return images
