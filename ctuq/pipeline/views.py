"""What a scan's views are used for, and their rays as an image makes them."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.errors import InputError
from ctuq.pipeline.bars import UNCALIBRATED
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.recon.dip import Data
from ctuq.recon.holdout import too_few, views_to_hold
from ctuq.recon.outside import outside_rays
from ctuq.stages import Stages
from ctuq.tomo.field import only_drifts, outline_of, reaches_beyond
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.scan import Scan
from ctuq.tomo.volume_scan import VolumeScan


@dataclass(frozen=True, eq=False)
class SplitViews:
    """Indices of the views to fit and to hold out; what the user should know of the choice, and of what they see."""

    fitted: NDArray[np.int64]
    held: NDArray[np.int64]
    notes: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


def split_views(options: ReconstructOptions, scan: Scan) -> SplitViews:
    """Which views are fitted, and which calibrate the error bars."""
    every, nobody = np.arange(scan.n_angles), np.zeros(0, np.int64)
    held, n = views_to_hold(scan, options.calibration_views)
    if options.bars is None:
        return SplitViews(every, nobody)
    if not (options.calibrate and len(held)):
        asked = options.calibrate and options.calibration_views is None
        few = f" {too_few(n)}." if asked else ""
        return SplitViews(every, nobody, (UNCALIBRATED + few,))
    return SplitViews(np.setdiff1d(every, held), held)


def rays_inside(
    A: RayTransform, scan: Scan, held: NDArray[np.int64], *, device: torch.device, stages: Stages, flux: bool = False
) -> Data:
    """The rays as what lies inside of the image makes them; what lies outside is estimated from the views that are fitted.

    Where the ``flux`` of views is a part of the model, air that reads it is not taken for an object there. Of ellipses with
    flux of ten times the noise it was, and no interval of a view's flux held it.
    """
    y, weights = tensors(scan, device)
    if not lies_outside(scan, A.grid, flux=flux):
        return Data(A, y, weights)
    outline = outline_of(scan)
    seen = weights.clone()
    seen[torch.as_tensor(held, device=device)] = 0
    name = "outside" if len(held) else "outside of all views"
    outside = stages.once(name, partial(outside_rays, A, y, weights=seen, reach=outline.reach))
    return Data(A, y - outside.to(device), weights)


def lies_outside(scan: Scan, grid: VolumeGrid, *, flux: bool) -> bool:
    """Whether part of the object lies outside of the image; where the ``flux`` of views is unknown, not for it alone."""
    return bool(outline_of(scan).cut or reaches_beyond(scan, grid)) and not (flux and only_drifts(scan, grid))


def tensors(scan: Scan | VolumeScan, device: torch.device) -> tuple[Tensor, Tensor]:
    """Projections and weights on a device."""
    weights = np.ones_like(scan.projections) if scan.weights is None else scan.weights
    return torch.tensor(scan.projections, device=device), torch.tensor(weights, device=device)


def grid_of(own: RayTransform, scan: Scan, checkpoint: Path | str | None) -> VolumeGrid:
    """The grid of a ray transform of one's own, which must be of these views."""
    same = own.range.shape == scan.projections.shape and np.allclose(own.geometry.angles, scan.geometry.angles, atol=1e-6)
    if not same:
        raise InputError(f"The ray transform is of {own.range.shape} rays at its angles, the scan of {scan.projections.shape}.")
    if checkpoint is not None:
        raise InputError("A run with a ray transform of one's own cannot be gone on with; leave the checkpoint out.")
    return own.grid


def match_detector(scan: Scan, grid: VolumeGrid) -> Scan:
    """Average neighbouring columns while their rays stay closer than a pixel's width at the axis.

    Parameters
    ----------
    scan : Scan
    grid : VolumeGrid
        Whose pixels count.

    Returns
    -------
    Scan
        Itself where no columns can be averaged.
    """
    return scan.binned(scan.geometry.binning(grid))
