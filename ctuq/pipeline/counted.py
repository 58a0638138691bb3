"""Scans of line integrals without weights: how precise each ray is, where its noise clearly grows as that of counts does."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.pipeline.views import match_detector, tensors
from ctuq.recon.tv import tv
from ctuq.tomo import ray_transform
from ctuq.tomo.count_noise import growth_of, variance_of
from ctuq.tomo.field import choose_grid, outline_of
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.matrix import MatrixRayTransform
from ctuq.tomo.scan import NOISE_GROWTH, Scan
from ctuq.tomo.subpixel import subpixel_variance
from ctuq.tomo.volume_scan import VolumeScan

_VIEWS, _SIZE = 64, 128
"""Most views and pixels of the image that tells."""
_THICK, _UNITS = 0.7, 12.0
"""Line integrals up to the one are at most twice as uncertain, in variance, as air: weights gain 0.03 nats then. No detector
sees through the other: such numbers have other units (in published scans of basalt and dendrites they are 100 and 1,200)."""
_TOGETHER = 0.1
"""Of the rays, whose weight differs, up to which a scan counts as one without weights: bins of columns, of which some are bad,
are worth a part of the others."""
_TOLD = (
    "The noise of rays grows with attenuation as that of counts, {:.2g} times as large through the thickest parts as in air, "
    "and the scan has no weights: rays count as that says. If the counts are known, give them in place of line integrals."
)


def weighed_by_counts(scan: Scan, size: int, device: torch.device) -> Scan:
    """The scan with weights by the noise that its rays show, and told; itself where it has weights, or its noise does not grow.

    Parameters
    ----------
    scan : Scan
    size : int
        Pixels of the image to be made.
    device : torch.device
    """
    growth = growth_in(scan, size, device)
    return weighed(scan, growth, size, device).warned(told_of(scan, growth)) if growth else scan


def growth_in(scan: Scan, size: int, device: torch.device) -> float:
    """How the noise of a scan without weights grows with attenuation (`ctuq.tomo.count_noise`); arguments as above."""
    given = _given(scan)
    used = given > 0
    if not used.any() or np.mean(given[used] != np.median(given[used])) > _TOGETHER:
        return 0.0
    if not _THICK < _thick(scan) < _UNITS:
        return 0.0
    found = _growth(scan, size, device)
    # An image by even rays fits the noise of the thickest, which then seem quieter than they are: of 300 to 3,000 counts g was
    # 0.4 to 0.7 by it, and 0.7 to 1 by an image of rays so weighed.
    return found and (_growth(weighed(scan, found, size, device), size, device) or found)


def weighed(scan: Scan, growth: float, size: int, device: torch.device) -> Scan:
    """The scan whose rays count as a noise of this growth says, by the line integrals of an image; arguments as above."""
    grid, _, image = _image(scan, size, device)
    line_integrals = ray_transform(grid, scan.geometry, device=device, backend="matrix")(image).cpu().numpy()
    facts = {**scan.provenance.facts, NOISE_GROWTH: f"{growth:g}"}
    weights = (_given(scan) / variance_of(line_integrals, growth)).astype(np.float32)
    return replace(scan, weights=weights, provenance=replace(scan.provenance, facts=facts))


def unweighed(scan: Scan) -> Scan:
    """The scan without weights that were found: these differ in their last digit from machine to machine."""
    return replace(scan, weights=None) if scan.provenance.noise_growth else scan


def told_of(scan: Scan | VolumeScan, growth: float) -> str:
    """What the user should know of it."""
    return _TOLD.format(float(np.sqrt(variance_of(np.asarray(_thick(scan)), growth))))


def _growth(scan: Scan, size: int, device: torch.device) -> float:
    grid, some, image = _image(scan, size, device)
    A = ray_transform(grid, some.geometry, device=device, backend="matrix")
    assert isinstance(A, MatrixRayTransform)
    (y, weights), shown = tensors(some, device), A(image)
    kept = (weights > 0).cpu().numpy()
    beside = subpixel_variance(image.cpu().numpy(), A.matrix, A.geometry)[kept]
    return growth_of((y - shown).cpu().numpy()[kept], shown.cpu().numpy()[kept], beside)


def _given(scan: Scan | VolumeScan) -> NDArray[np.float32]:
    return np.ones_like(scan.projections) if scan.weights is None else scan.weights


def _thick(scan: Scan | VolumeScan) -> float:
    """Line integrals through the object's thickest parts."""
    return float(np.percentile(scan.projections[_given(scan) > 0], 99))


def _image(scan: Scan, size: int, device: torch.device) -> tuple[VolumeGrid, Scan, Tensor]:
    """An image of the whole object by total variation of some of the views, its grid, and these views."""
    some = scan.select(np.unique(np.linspace(0, scan.n_angles - 1, min(_VIEWS, scan.n_angles)).round().astype(int)))
    size, outline = min(size, _SIZE), outline_of(some)
    grid = choose_grid(some, size)
    if 2 * outline.reach > min(grid.shape) * grid.voxel:
        grid = choose_grid(some, size, 2 * outline.reach)
    some = match_detector(some, grid)
    y, weights = tensors(some, device)
    return grid, some, tv(ray_transform(grid, some.geometry, device=device, backend="matrix"), y, weights=weights)
