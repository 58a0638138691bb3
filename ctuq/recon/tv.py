"""Total-variation reconstruction by a primal-dual method, in batches."""

import torch
from torch import Tensor

from ctuq.recon.noise import noise_std
from ctuq.tomo.rays.transform import RayTransform

_RELATIVE_FLOOR = 1e-3
# Measured on glyphs and rectangles: within 0.1 dB of the minimiser in 100 iterations, against 3,000 with 1.
_DUAL_OVER_PRIMAL = 0.1


@torch.no_grad()
def tv(
    A: RayTransform,
    y: Tensor,
    *,
    weights: Tensor | None = None,
    strength: float = 1.0,
    iterations: int = 200,
    nonnegative: bool = True,
) -> Tensor:
    """Minimise 1/2 |W^1/2 (A x - y)|^2 + lambda TV(x), x >= 0, by the primal-dual method of Chambolle and Pock (2011).

    TV is the sum over pixels of the length of the forward differences. lambda = ``strength`` times the standard deviation that
    noise of the size read from the sinogram has in a pixel of A' W y: it follows the data's scale, their number and the units,
    so ``strength`` needs no change from scan to scan. Diagonal step sizes after Pock and Chambolle (2011), between a
    primal in 1/mm and a dual without unit.

    Parameters
    ----------
    A : RayTransform
    y : Tensor, shape (..., angle, column)
        Line integrals.
    weights : Tensor, shape (..., angle, column), optional
        Relative precision of each ray; None means ones.
    strength : float
        Larger is smoother.
    iterations : int
    nonnegative : bool
        Keep attenuation from falling below 0.

    Returns
    -------
    Tensor, shape (..., y, x)
        Attenuation in 1/mm.
    """
    w = torch.ones_like(y) if weights is None else weights.expand_as(y)
    penalty = strength * _noise_in_image(A, y, weights)[..., None, None, None]
    rays = A(torch.ones(A.domain.shape, device=y.device))
    pixels = A.T(torch.ones(A.range.shape, device=y.device))
    balance, unit = pixels.max() / 8, _DUAL_OVER_PRIMAL * (rays.max() * pixels.max()).sqrt()
    step = 1 / (pixels + 4 * balance) / unit
    dual_step = unit * torch.where(rays > 0, 1 / rays.clamp_min(torch.finfo(y.dtype).tiny), 0)
    slope_step = unit / (2 * balance)
    x = torch.zeros(*y.shape[:-2], *A.domain.shape, dtype=y.dtype, device=y.device)
    ahead, p, q = x, torch.zeros_like(y), torch.zeros(*y.shape[:-2], 2, *A.domain.shape, dtype=y.dtype, device=y.device)
    for _ in range(iterations):
        p = w * (p + dual_step * (A(ahead) - y)) / (w + dual_step)
        q = q + slope_step * balance * _gradient(ahead)
        q = q / (q.norm(dim=-3, keepdim=True) * balance / penalty).clamp_min(1)
        new = x - step * (A.T(p) + balance * _gradient_transpose(q))
        new = new.clamp_min(0) if nonnegative else new
        x, ahead = new, 2 * new - x
    return x


def _noise_in_image(A: RayTransform, y: Tensor, weights: Tensor | None) -> Tensor:
    """Standard deviation of a pixel of A' W n for noise n like that of ``y``, over the image; shape (...)."""
    used = y if weights is None else torch.where(weights > 0, y, 0)
    rms = used.square().mean((-2, -1)).sqrt()
    std = torch.maximum(noise_std(y, weights), _RELATIVE_FLOOR * rms)
    signs = torch.randint(0, 2, A.range.shape, generator=torch.Generator().manual_seed(0)).to(y) * 2 - 1
    probe = signs if weights is None else signs * weights.sqrt()
    spread = A.T(probe).square().mean((-2, -1)).sqrt()
    return (std * spread).clamp_min(torch.finfo(y.dtype).tiny)


def _gradient(x: Tensor) -> Tensor:
    """Forward differences (..., 2, y, x), 0 across the border."""
    down = torch.nn.functional.pad(x.diff(dim=-2), (0, 0, 0, 1))
    right = torch.nn.functional.pad(x.diff(dim=-1), (0, 1))
    return torch.stack([down, right], dim=-3)


def _gradient_transpose(q: Tensor) -> Tensor:
    down, right = q[..., 0, :-1, :], q[..., 1, :, :-1]
    pad = torch.nn.functional.pad
    return pad(down, (0, 0, 1, 0)) - pad(down, (0, 0, 0, 1)) + pad(right, (1, 0)) - pad(right, (0, 1))
