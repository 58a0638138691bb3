"""An object that is known to be of one material: its rays tell beam hardening, which is taken out of them before anything else.

An image of the rays as they are shows where the object is; lengths through it and what the rays read give a curve; rays freed
of the curve give a better image, in which nothing is denser than the material. When that stands still, generalised least
squares say how sure the curve is (`ctuq.systematics.material`).
"""

import logging

import numpy as np
import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.pipeline.views import match_detector, tensors
from ctuq.recon.tv import tv
from ctuq.systematics.curve import Curve
from ctuq.systematics.hardened import Hardened
from ctuq.systematics.material import MARGIN, SHORT, Parts, first_curve, told_of_curve
from ctuq.tomo import ray_transform
from ctuq.tomo.field import choose_grid, outline_of
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.scan import Scan

_VIEWS, _SIZE = 64, 128
"""Most views and pixels of the estimate: of HTC ta at 64 and 128 pixels, 31 views, c is 0.102 +- 0.006 and 0.097 +- 0.004."""
_ROUNDS, _STILL = 8, 0.01
_FEWEST, _THICK = 24, 0.08
_ROUGH, _OUTLYING = 0.25, 0.3
"""Two materials, one of them 1.6 times as dense as the other, half of each."""
_LONGER = 2.2
"""By so much the model's intervals are too short over simulated objects: pixels know nothing of edges that pass between them
(`experiments.systematics.material`)."""
_log = logging.getLogger(__name__)


def hardened(scan: Scan, size: int, device: torch.device) -> Hardened:
    """Beam hardening of a scan of one material.

    Parameters
    ----------
    scan : Scan
    size : int
        Pixels of the image to be made; the estimate has 128 at most.
    device : torch.device

    Raises
    ------
    InputError
        If the object has no inside, reaches beyond the detector, or is not of one material.
    """
    outline = outline_of(scan)
    if outline.cut:
        raise InputError(
            f"The object reaches beyond the detector at the {' and '.join(outline.cut)} columns, so that no length through it "
            "is known, and --material uniform needs these; leave it out."
        )
    some = scan.select(np.unique(np.linspace(0, scan.n_angles - 1, min(_VIEWS, scan.n_angles)).round().astype(int)))
    grid = choose_grid(some, min(size, _SIZE))
    if 2 * outline.reach > min(grid.shape) * grid.voxel:
        grid = choose_grid(some, min(size, _SIZE), 2 * outline.reach)
    some = match_detector(some, grid)
    A = ray_transform(grid, some.geometry, device=device, backend="matrix")
    return _estimated(A, *tensors(some, device))


def _estimated(A: RayTransform, y: Tensor, weights: Tensor) -> Hardened:
    curve, attenuation, parts, dense = _alternated(A, y, weights)
    if not (attenuation > 0 and np.isfinite(curve.c)):
        raise InputError(
            "The rays do not grow with the length through the object, as those of one material do; take --material any."
        )
    told = told_of_curve(A, (y, weights), parts, curve, attenuation)
    if parts.rough > _ROUGH or told.outlying > _OUTLYING:
        raise InputError(
            f"The object is not of one material: its inside differs by {100 * parts.rough:.0f} % (rms) from one attenuation, "
            f"and {100 * told.outlying:.0f} % of its rays from what one explains; leave --material uniform out."
        )
    _log.info("Beam hardening %.4f +- %.4f: %s.", told.c, _LONGER * told.sd, told.curve)
    return Hardened(told, _LONGER * told.sd, parts.rough, dense)


def _alternated(A: RayTransform, y: Tensor, weights: Tensor) -> tuple[Curve, float, Parts, float]:
    """Image and curve in turn, until the curve stands still."""
    values, used = y.double().cpu().numpy(), (weights > 0).cpu().numpy()
    p, worth, ceiling, curve = y, weights, None, Curve()
    attenuation, parts, dense = 0.0, None, None
    for _ in range(_ROUNDS):
        image = tv(A, p, weights=worth, largest=ceiling)
        parts = Parts.of(image.double().cpu().numpy())
        _require_inside(parts)
        # Later images have nothing denser than the material.
        dense = parts.dense if dense is None else dense
        both = torch.from_numpy(np.stack([parts.share, parts.edge])).to(y)
        length, edge = A(both).double().cpu().numpy()
        found, attenuation = first_curve(length[used], edge[used], values[used], SHORT * A.grid.voxel)
        if not attenuation > 0:
            break
        ceiling, longest = attenuation, attenuation * float(length.max())
        still = abs(found.c - curve.c) * longest < _STILL
        curve = found
        integrals, slope = curve.line_integrals(values)
        p, worth = torch.from_numpy(integrals).to(y), weights * torch.from_numpy(slope**2).to(weights)
        if still:
            break
    assert parts is not None and dense is not None
    return curve, attenuation, parts, dense


def _require_inside(parts: Parts) -> None:
    inside, body = int(parts.inside.sum()), float(parts.share.sum())
    if inside < max(_FEWEST, _THICK * body):
        raise InputError(
            f"Only {inside} of the object's {body:.0f} pixels lie {MARGIN} pixels inside of it, too few for --material "
            "uniform: give a larger --size, or leave it out."
        )
