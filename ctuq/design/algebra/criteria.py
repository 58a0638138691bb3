"""What a candidate view is worth: functions from a `GivenViews` prior to a score for every view."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.design.algebra.conditioning import GivenViews
from ctuq.errors import InputError
from ctuq.linops.gaussian import whitened_factor
from ctuq.tomo.geometry import VolumeGrid


def _information_gain(state: GivenViews) -> Tensor:
    """EIG: ``1/2 log det(I + D^1/2 A_v S A_v^T D^1/2)`` in nats, the expected drop of the image's entropy; (V,)."""
    L = whitened_factor(state.blocks, state.precision.sqrt())
    return L.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _diagonal_information_gain(state: GivenViews) -> Tensor:
    """EIG as if the rays of a view were independent, ``1/2 sum_i log(1 + D_ii (A_v S A_v^T)_ii)`` in nats; (V,)."""
    return 0.5 * torch.log1p(state.precision * _ray_variances(state)).sum(-1)


def _squared_error(state: GivenViews) -> Tensor:
    """ESE: ``tr(A_v S A_v^T)``, the expected squared error of predicting the view, over rays that count; (V,)."""
    return torch.where(state.precision > 0, _ray_variances(state), 0.0).sum(-1)


def _variance_reduction(state: GivenViews) -> Tensor:
    """A-optimal gain: the drop of ``sum_i E_ii S_ii`` over the region E, in squared units of the image; (V,).

    ``tr(D^1/2 (I + D^1/2 A_v S A_v^T D^1/2)^-1 D^1/2 A_v S E S A_v^T)``. It is quadratic in S, so that rounding grows with
    the square of what was learned: measured after ten views, 2e-7 of the gain at a prior variance 1e3 times the noise, 3e-4 at
    1e6; the other criteria keep 1e-8.

    Raises
    ------
    InputError
        If the state carries no region.
    """
    if state.squared is None:
        raise InputError("The A-optimal gain needs a region; start the conditioning with one (ones for the whole image).")
    scale = state.precision.sqrt()
    L = whitened_factor(state.blocks, scale)
    return torch.cholesky_solve(scale[..., :, None] * state.squared * scale[..., None, :], L).diagonal(dim1=1, dim2=2).sum(-1)


@dataclass(frozen=True)
class Criterion:
    """A criterion by name.

    Parameters
    ----------
    name : str
    score : callable
        `GivenViews` to scores (V,).
    unit : str
    regional : bool
        Whether the state must carry a region.
    """

    name: str
    score: Callable[[GivenViews], Tensor]
    unit: str
    regional: bool = False

    def __call__(self, state: GivenViews) -> Tensor:
        return self.score(state)


# Neither is best everywhere: on rectangles of one direction expected squared error gives 34.7 dB with 10 angles and information
# gain 34.2 (equidistant angles 32.6), on the scan HTC tb with 20 angles 14.0 and 14.3. The gain is the default since it counts
# what the rays of a view tell together, and stopping rules can be given in nats.
EIG = Criterion("eig", _information_gain, "nats")
DIAGONAL_EIG = Criterion("diagonal-eig", _diagonal_information_gain, "nats")
ESE = Criterion("ese", _squared_error, "squared line integrals")
A_OPTIMAL = Criterion("a", _variance_reduction, "summed variance (1/mm^2)", regional=True)
CRITERIA = {criterion.name: criterion for criterion in (EIG, DIAGONAL_EIG, ESE, A_OPTIMAL)}


def box_region(grid: VolumeGrid, box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """The pixels whose centres lie in a box.

    Parameters
    ----------
    grid : VolumeGrid
    box : tuple of float
        Left, right, bottom, top in mm, as `VolumeGrid.extent`.

    Raises
    ------
    InputError
        If no pixel's centre lies inside.
    """
    left, right, bottom, top = box
    y, x = grid.places()[-2:]
    inside = ((left <= x) & (x <= right))[None] & ((bottom <= y) & (y <= top))[:, None]
    if not inside.any():
        raise InputError(f"No pixel lies in the box {box} mm; the image spans {grid.extent}.")
    return inside


def _ray_variances(state: GivenViews) -> Tensor:
    return state.blocks.diagonal(dim1=1, dim2=2).clamp(min=0)
