"""How fast the work of a reconstruction goes on this machine, found before it begins: on a smaller image where it is large."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ctuq.linops.jacobian.cost import ProductCost
from ctuq.pipeline.bars import asks_for
from ctuq.pipeline.image.placed import matched
from ctuq.pipeline.image.rings import gains_asked, seconds_of_gains
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.plan import Speeds, seconds_of_rays, speeds_of_fit
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.views import rays_inside, split_views
from ctuq.recon.dip import Data, Generator, generator
from ctuq.recon.holdout import split
from ctuq.tomo import ray_transform
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.scan import Scan

_LARGEST = 192
"""Pixels on a side up to which the work itself is tried. Steps of the fit and products take as long for a pixel of 512 x 512 as
of 192 x 192 to 13 % (CPU seconds, the walnut), and gains of columns 0.6 times as long; at 512 x 512 it took 31 CPU seconds."""
_ENTRIES = 2**25
"""Of the matrix of a large image's rays, at most, by which they are timed at their own size: an entry takes 5 times as long at
512 x 512 as at 192 x 192. A quarter of the views takes a third more for each, since what does not hang on views counts too."""


@dataclass(frozen=True)
class Rehearsal:
    """What was tried.

    Parameters
    ----------
    speeds : Speeds
        At the size of the work.
    gains : float, optional
        Seconds for gains of columns, where these are asked for.
    fit : Data
    generate : Generator
    start : dict of str to Tensor
        Rays, network and its first weights, at the size that was tried.
    """

    speeds: Speeds
    gains: float | None
    fit: Data
    generate: Generator
    start: dict[str, Tensor]


def rehearsed(run: Run[ReconstructOptions], given: Scan, scan: Scan, grid: VolumeGrid) -> Rehearsal:
    """Try the work of a reconstruction.

    Parameters
    ----------
    run : Run
    given, scan : Scan
        As it was read, and as the grid takes it.
    grid : VolumeGrid
        Of the image.
    """
    # One's own network may be for images of one size.
    if max(grid.shape) <= _LARGEST or run.options.dip.module is not None:
        return _tried(run, scan, grid)
    small = Run(replace(run.options, size=_LARGEST), None)
    tried = _tried(small, *matched(given, small.options))
    share = grid.size / tried.fit.A.domain.size
    entries = scan.projections.size * max(grid.shape)
    some = np.arange(0, scan.n_angles, -(-entries // _ENTRIES))
    few = ray_transform(grid, scan.geometry.subset(some), device=run.device, backend="matrix")
    rays = seconds_of_rays(few) * scan.n_angles / len(some)
    one = tried.speeds.products
    products = ProductCost(
        one.choice, share * one.forward_seconds, share * one.vjp_seconds, share * one.jvp_seconds, int(share * one.bytes)
    )
    speeds = Speeds(share * tried.speeds.iteration, products, rays, tried.speeds.flop)
    return replace(tried, speeds=speeds, gains=None if tried.gains is None else share * tried.gains)


def _tried(run: Run[ReconstructOptions], scan: Scan, grid: VolumeGrid) -> Rehearsal:
    A = ray_transform(grid, scan.geometry, device=run.device, backend="matrix")
    held: NDArray[np.int64] = split_views(run.options, scan).held
    flux = asks_for("flux", run.options.systematics, scan)
    data = rays_inside(A, scan, held, device=run.device, stages=run.stages, flux=flux)
    fit, _ = split(data, held, rng=run.rng)
    generate, start = generator(fit, run.options.dip, rng=run.rng)
    gains = seconds_of_gains(data) if gains_asked(run, scan) else None
    return Rehearsal(speeds_of_fit(fit, generate, start), gains, fit, generate, start)
