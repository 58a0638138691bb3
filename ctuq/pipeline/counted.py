"""Scans of line integrals without weights: how precise each ray is, where its noise clearly grows as that of counts does."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.pipeline.views import match_detector, tensors
from ctuq.recon.tv import tv
from ctuq.tomo import ray_transform
from ctuq.tomo.count_noise import growth_of, may_grow, told_of, variance_of
from ctuq.tomo.field import choose_grid, outline_of
from ctuq.tomo.rays.matrix import MatrixRayTransform
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.scan import Scan
from ctuq.tomo.subpixel import subpixel_variance

_VIEWS, _SIZE = 64, 128
"""Most views and pixels of the image that tells."""
_TOGETHER = 0.1
"""Of the rays, whose weight differs, up to which a scan counts as one without weights: bins of columns, of which some are bad,
are worth a part of the others."""
_Shown = tuple[RayTransform, Scan, Tensor]
"""An image of the whole object by total variation of some of the views, after these views and their rays."""


def weighed_by_counts(scan: Scan, size: int, device: torch.device) -> Scan:
    """The scan with weights by the noise that its rays show, and told; itself where it has weights, or its noise does not grow.

    Parameters
    ----------
    scan : Scan
    size : int
        Pixels of the image to be made.
    device : torch.device
    """
    growth, shown = _found(scan, size, device)
    return _by_image(scan, growth, shown).warned(told_of(scan.projections, growth)) if shown and growth else scan


def growth_in(scan: Scan, size: int, device: torch.device) -> float:
    """How the noise of a scan without weights grows with attenuation (`ctuq.tomo.count_noise`); arguments as above."""
    return _found(scan, size, device)[0]


def weighed(scan: Scan, growth: float, size: int, device: torch.device) -> Scan:
    """The scan whose rays count as a noise of this growth says, by the line integrals of an image; arguments as above."""
    return _by_image(scan, growth, _image(scan, size, device))


def unweighed(scan: Scan) -> Scan:
    """The scan without weights that were found: these differ in their last digit from machine to machine."""
    return replace(scan, weights=None) if scan.provenance.noise_growth else scan


def _found(scan: Scan, size: int, device: torch.device) -> tuple[float, _Shown | None]:
    """The growth, and the image by rays as they came that told it, if one was made."""
    given = _given(scan)
    used = given > 0
    if not used.any() or np.mean(given[used] != np.median(given[used])) > _TOGETHER:
        return 0.0, None
    if not may_grow(scan.projections[used]):
        return 0.0, None
    shown = _image(scan, size, device)
    growth = _growth(shown)
    # An image by even rays fits the noise of the thickest, which then seem quieter than they are: of 300 to 3,000 counts g was
    # 0.4 to 0.7 by it, and 0.7 to 1 by an image of rays so weighed.
    return growth and (_growth(_image(_by_image(scan, growth, shown), size, device)) or growth), shown


def _growth(shown: _Shown) -> float:
    A, some, image = shown
    assert isinstance(A, MatrixRayTransform)
    (y, weights), rays = tensors(some, A.device), A(image)
    kept = (weights > 0).cpu().numpy()
    beside = subpixel_variance(image.cpu().numpy(), A.matrix, A.geometry)[kept]
    return growth_of((y - rays).cpu().numpy()[kept], rays.cpu().numpy()[kept], beside)


def _by_image(scan: Scan, growth: float, shown: _Shown) -> Scan:
    A, _, image = shown
    line_integrals = ray_transform(A.grid, scan.geometry, device=A.device, backend="matrix")(image).cpu().numpy()
    weights = (_given(scan) / variance_of(line_integrals, growth)).astype(np.float32)
    return replace(scan, weights=weights, provenance=scan.provenance.grown(growth))


def _given(scan: Scan) -> NDArray[np.float32]:
    return np.ones_like(scan.projections) if scan.weights is None else scan.weights


def _image(scan: Scan, size: int, device: torch.device) -> _Shown:
    some = scan.select(np.unique(np.linspace(0, scan.n_angles - 1, min(_VIEWS, scan.n_angles)).round().astype(int)))
    size, outline = min(size, _SIZE), outline_of(some)
    grid = choose_grid(some, size)
    if 2 * outline.reach > min(grid.shape) * grid.voxel:
        grid = choose_grid(some, size, 2 * outline.reach)
    some = match_detector(some, grid)
    A = ray_transform(grid, some.geometry, device=device, backend="matrix")
    y, weights = tensors(some, device)
    return A, some, tv(A, y, weights=weights)
