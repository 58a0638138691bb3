"""SIRT and CGLS: least-squares reconstruction by repeated products with the ray transform, in batches."""

import torch
from torch import Tensor

from ctuq.recon.noise import noise_std
from ctuq.tomo.rays.transform import RayTransform

_STALLED = 1e-2


@torch.no_grad()
def sirt(
    A: RayTransform,
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
    A : RayTransform
    y : Tensor, shape (..., angle, column)
        Line integrals.
    weights : Tensor, shape (..., angle, column), optional
        Relative precision of each ray; None means ones.
    iterations : int
        More fit the data closer, noise included.
    nonnegative : bool
        Keep attenuation from falling below 0.
    start : Tensor, shape (..., y, x), optional
        By default nothing.

    Returns
    -------
    Tensor, shape (..., y, x)
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
def cgls(A: RayTransform, y: Tensor, *, weights: Tensor | None = None, iterations: int = 50) -> Tensor:
    """Conjugate gradients on the weighted normal equations, stopped before they fit the noise.

    Each image of a batch stops by itself when its residual has come down to the noise that `ctuq.recon.noise.noise_std`
    reads from its sinogram (discrepancy principle), or when an iteration lowers it by less than a hundredth; at ``iterations``
    at the latest.

    Parameters
    ----------
    A : RayTransform
    y : Tensor, shape (..., angle, column)
        Line integrals.
    weights : Tensor, shape (..., angle, column), optional
        Relative precision of each ray; None means ones.
    iterations : int
        The largest number.

    Returns
    -------
    Tensor, shape (..., y, x)
        Attenuation in 1/mm; it may be negative.
    """
    root = torch.ones_like(y) if weights is None else weights.sqrt().expand_as(y)
    noise = noise_std(y, weights).square() * (root > 0).sum((-2, -1))
    residual = root * y
    gradient = A.T(root * residual)
    x, direction = torch.zeros_like(gradient), gradient
    size, misfit = _square(gradient), _square(residual)
    running = (size > 0) & (misfit > noise)
    for _ in range(iterations):
        if not running.any():
            break
        image = root * A(direction)
        length = torch.where(running, size / _square(image).clamp_min(_tiny(size)), 0)[..., None, None]
        x, residual = x + length * direction, residual - length * image
        gradient = A.T(root * residual)
        before, size = size, _square(gradient)
        direction = gradient + (size / before.clamp_min(_tiny(size)))[..., None, None] * direction
        last, misfit = misfit, _square(residual)
        running = running & (misfit > noise) & (misfit < (1 - _STALLED) ** 2 * last) & (size > 0)
    return x


def _square(x: Tensor) -> Tensor:
    return x.square().sum((-2, -1))


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny
