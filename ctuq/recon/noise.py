"""The noise of a sinogram, read from the sinogram itself."""

import torch
from torch import Tensor

from ctuq.scores.gaussian import NORMAL_QUARTILE
from ctuq.tomo.shadow import STENCIL

_FEWEST = 50


def noise_std(y: Tensor, weights: Tensor | None = None) -> Tensor:
    """Standard deviation of the noise of a ray of weight 1, from fourth differences along the columns.

    Projections are smooth but for a few edges, so the median of |fourth difference| is noise. Rays through air are left out,
    for counts make them less noisy: only rays above a tenth of the largest line integral are used, where there are enough.

    Parameters
    ----------
    y : Tensor, shape (..., angle, column)
    weights : Tensor, optional

    Returns
    -------
    Tensor, shape (...)
    """
    if y.shape[-1] < len(STENCIL):
        return torch.zeros(y.shape[:-2], dtype=y.dtype, device=y.device)
    windows = y.unfold(-1, len(STENCIL), 1)
    stencil = y.new_tensor(STENCIL)
    difference = (windows @ stencil).abs() / stencil.norm()
    largest = y if weights is None else torch.where(weights > 0, y, 0)
    inside = windows.amin(-1) > 0.1 * largest.amax((-2, -1), keepdim=True)
    if weights is not None:
        rays = weights.expand_as(y).unfold(-1, len(STENCIL), 1)
        variance = (stencil.square() / rays.clamp_min(torch.finfo(y.dtype).tiny)).sum(-1) / stencil.square().sum()
        difference = torch.where(rays.amin(-1) > 0, difference / variance.sqrt(), torch.nan)
    inside = inside & difference.isfinite()
    few = inside.sum((-2, -1), keepdim=True) < _FEWEST
    chosen = torch.where(inside | few, difference, torch.nan).flatten(-2)
    return (chosen.nanmedian(-1).values / NORMAL_QUARTILE).nan_to_num(0.0)
