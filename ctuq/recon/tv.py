"""Total-variation reconstruction by a primal-dual method, in batches."""

import torch
from torch import Tensor

from ctuq.recon.noise import noise_std
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.rays.volume import VolumeTransform

ITERATIONS = 200
_RELATIVE_FLOOR = 1e-3
# Measured on glyphs and rectangles: within 0.1 dB of the minimiser in 100 iterations, against 3,000 with 1.
_DUAL_OVER_PRIMAL = 0.1
# Of volumes (ball and shells, 16^3 to 32^3) a strength of 1 loses 2 to 3 dB of fine shells against the best, and 0.5 up to
# 2.9 dB of a smooth ball; in two dimensions 0.5 to 1 is best.
_STRENGTH = {2: 1.0, 3: 0.5}


@torch.no_grad()
def tv(
    A: RayTransform | VolumeTransform,
    y: Tensor,
    *,
    weights: Tensor | None = None,
    strength: float | Tensor | None = None,
    iterations: int = ITERATIONS,
    nonnegative: bool = True,
    largest: float | None = None,
) -> Tensor:
    """Minimise 1/2 |W^1/2 (A x - y)|^2 + lambda TV(x), x >= 0, by the primal-dual method of Chambolle and Pock (2011).

    TV is the sum over pixels (of volumes voxels) of the length of the forward differences. lambda = ``strength`` times the
    standard deviation that noise of the size read from the sinogram has in a pixel of A' W y: it follows the data's scale,
    their number and the units, so ``strength`` needs no change from scan to scan. Diagonal step sizes after Pock and Chambolle
    (2011), between a primal in 1/mm and a dual without unit.

    Parameters
    ----------
    A : RayTransform or VolumeTransform
    y : Tensor, shape (..., angle, column) or (..., row, angle, column)
        Line integrals.
    weights : Tensor, shape as y, optional
        Relative precision of each ray; None means ones.
    strength : float or Tensor, shape (...), optional
        Larger is smoother. By default 1 for images and 0.5 for volumes.
    iterations : int
    nonnegative : bool
        Keep attenuation from falling below 0.
    largest : float, optional
        Keep it from rising above, 1/mm.

    Returns
    -------
    Tensor, shape (..., y, x) or (..., z, y, x)
        Attenuation in 1/mm.
    """
    axes, batch = len(A.domain.shape), y.shape[: -len(A.range.shape)]
    w = torch.ones_like(y) if weights is None else weights.expand_as(y)
    strength = _STRENGTH[axes] if strength is None else strength
    penalty = (strength * _noise_in_image(A, y, weights)).reshape(*batch, *[1] * (axes + 1))
    rays = A(torch.ones(A.domain.shape, device=y.device))
    pixels = A.T(torch.ones(A.range.shape, device=y.device))
    # |gradient|^2 is at most 4 for each axis.
    balance, unit = pixels.max() / (4 * axes), _DUAL_OVER_PRIMAL * (rays.max() * pixels.max()).sqrt()
    step = 1 / (pixels + 2 * axes * balance) / unit
    dual_step = unit * torch.where(rays > 0, 1 / rays.clamp_min(torch.finfo(y.dtype).tiny), 0)
    slope_step = unit / (2 * balance)
    x = torch.zeros(*batch, *A.domain.shape, dtype=y.dtype, device=y.device)
    ahead, p, q = x, torch.zeros_like(y), _gradient(x, axes)
    for _ in range(iterations):
        # A ray of no weight that misses the image has no step either.
        p = w * (p + dual_step * (A(ahead) - y)) / (w + dual_step).clamp_min(torch.finfo(y.dtype).tiny)
        q = q + slope_step * balance * _gradient(ahead, axes)
        # `norm` along an axis of two takes 50 times as long as this, and was two thirds of all at 256 x 256.
        length = q.square().sum(dim=-axes - 1, keepdim=True).sqrt()
        q = q / (length * balance / penalty).clamp_min(1)
        new = x - step * (A.T(p) + balance * _gradient_transpose(q, axes))
        new = new.clamp_min(0) if nonnegative else new
        new = new if largest is None else new.clamp_max(largest)
        x, ahead = new, 2 * new - x
    return x


def _noise_in_image(A: RayTransform | VolumeTransform, y: Tensor, weights: Tensor | None) -> Tensor:
    """Standard deviation of a pixel of A' W n for noise n like that of ``y``, over the image; shape (...)."""
    rays, pixels = len(A.range.shape), len(A.domain.shape)
    used = y if weights is None else torch.where(weights > 0, y, 0)
    rms = used.square().flatten(-rays).mean(-1).sqrt()
    # Of a volume each row of the detector is a row of the sinogram.
    rows = None if weights is None else weights.expand_as(y).flatten(-rays, -2)
    std = torch.maximum(noise_std(y.flatten(-rays, -2), rows), _RELATIVE_FLOOR * rms)
    signs = torch.randint(0, 2, A.range.shape, generator=torch.Generator().manual_seed(0)).to(y) * 2 - 1
    probe = signs if weights is None else signs * weights.sqrt()
    spread = A.T(probe).square().flatten(-pixels).mean(-1).sqrt()
    return (std * spread).clamp_min(torch.finfo(y.dtype).tiny)


def _gradient(x: Tensor, axes: int) -> Tensor:
    """Forward differences along each of the last axes, (..., axis, *image), 0 across the border."""
    return torch.stack([_padded(x.diff(dim=axis), axis, (0, 1)) for axis in range(-axes, 0)], dim=-axes - 1)


def _gradient_transpose(q: Tensor, axes: int) -> Tensor:
    parts = [
        _padded(part, axis, (1, 0)) - _padded(part, axis, (0, 1))
        for axis, part in ((axis, _but_last(q.select(-axes - 1, axis + axes), axis)) for axis in range(-axes, 0))
    ]
    return torch.stack(parts).sum(0)


def _but_last(x: Tensor, axis: int) -> Tensor:
    return x.narrow(axis, 0, x.shape[axis] - 1)


def _padded(x: Tensor, axis: int, ends: tuple[int, int]) -> Tensor:
    return torch.nn.functional.pad(x, (*[0, 0] * (-axis - 1), *ends))
