"""SIRT and CGLS: least-squares reconstruction by repeated products with the ray transform, in batches."""

import torch
from torch import Tensor

from ctuq.linops.operator import LinearOperator, Space
from ctuq.recon.noise import noise_std

_STALLED = 1e-2


@torch.no_grad()
def sirt(
    A: LinearOperator,
    y: Tensor,
    *,
    weights: Tensor | None = None,
    iterations: int = 200,
    nonnegative: bool = True,
    start: Tensor | None = None,
) -> Tensor:
    """Simultaneous iterative reconstruction: x <- x + C A' W R (y - A x), R and C the inverse row and column sums.

    Parameters
    ----------
    A : RayTransform or VolumeTransform
    y : Tensor, shape (..., angle, column) or (..., row, angle, column)
        Line integrals.
    weights : Tensor, shape as y, optional
        Relative precision of each ray; None means ones.
    iterations : int
        More fit the data closer, noise included.
    nonnegative : bool
        Keep attenuation from falling below 0.
    start : Tensor, shape (..., y, x) or (..., z, y, x), optional
        By default nothing.

    Returns
    -------
    Tensor, shape (..., y, x) or (..., z, y, x)
        Attenuation in 1/mm.
    """
    lengths = A(torch.ones(A.domain.shape, device=y.device))
    precision = torch.ones_like(y[..., :1, :1]) if weights is None else weights
    rays = torch.where(lengths > 0, precision / lengths.clamp_min(_tiny(lengths)), 0)
    columns = A.T(torch.where(lengths > 0, precision, torch.zeros(())).expand_as(y))
    step = torch.where(columns > 0, 1 / columns.clamp_min(_tiny(columns)), 0)
    x = torch.zeros_like(columns) if start is None else start
    for _ in range(iterations):
        x = x + step * A.T(rays * (y - A(x)))
        if nonnegative:
            x = x.clamp_min(0)
    return x


@torch.no_grad()
def cgls(A: LinearOperator, y: Tensor, *, weights: Tensor | None = None, iterations: int = 50) -> Tensor:
    """Conjugate gradients on the weighted normal equations, stopped before they fit the noise.

    Each image of a batch stops by itself when its residual has come down to the noise that `ctuq.recon.noise.noise_std`
    reads from its sinogram (discrepancy principle), or when an iteration lowers it by less than a hundredth; at ``iterations``
    at the latest.

    Parameters
    ----------
    A : RayTransform or VolumeTransform
    y : Tensor, shape (..., angle, column) or (..., row, angle, column)
        Line integrals.
    weights : Tensor, shape as y, optional
        Relative precision of each ray; None means ones.
    iterations : int
        The largest number.

    Returns
    -------
    Tensor, shape (..., y, x) or (..., z, y, x)
        Attenuation in 1/mm; it may be negative.
    """
    root = torch.ones_like(y) if weights is None else weights.sqrt().expand_as(y)
    rays, pixels = len(A.range.shape), (1,) * len(A.domain.shape)
    rows = None if weights is None else weights.expand_as(y).flatten(-rays, -2)
    noise = noise_std(y.flatten(-rays, -2), rows).square() * (root > 0).flatten(-rays).sum(-1)
    residual = root * y
    gradient = A.T(root * residual)
    x, direction = torch.zeros_like(gradient), gradient
    size, misfit = _square(gradient, A.domain), _square(residual, A.range)
    running = (size > 0) & (misfit > noise)
    for _ in range(iterations):
        if not running.any():
            break
        image = root * A(direction)
        length = torch.where(running, size / _square(image, A.range).clamp_min(_tiny(size)), 0)
        x = x + length.reshape(*length.shape, *pixels) * direction
        residual = residual - length.reshape(*length.shape, *(1,) * rays) * image
        gradient = A.T(root * residual)
        before, size = size, _square(gradient, A.domain)
        step = size / before.clamp_min(_tiny(size))
        direction = gradient + step.reshape(*step.shape, *pixels) * direction
        last, misfit = misfit, _square(residual, A.range)
        running = running & (misfit > noise) & (misfit < (1 - _STALLED) ** 2 * last) & (size > 0)
    return x


def _square(x: Tensor, space: Space) -> Tensor:
    return x.square().flatten(-len(space.shape)).sum(-1)


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny
