"""How far a network is from its tangent model along posterior draws: for all weights, each layer alone, and by depth.

A linearised posterior says what the tangent model would do. Where the network itself, moved by the same draw, does something
else, its own outputs at posterior draws are no samples of that posterior.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.laplace.tangent.model import LinearModel

_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, eq=False)
class TangentGap:
    """Distance between network and tangent model when some of the weights move.

    Parameters
    ----------
    moved : str
        ``all``, the name of the one parameter that moves, or ``up to`` the name of the last that does.
    depth : int
        Number of the last parameter that moves, from 0 at the input.
    scales : Tensor, float64, shape (s,)
        Fractions of each draw.
    distance : Tensor, float64, shape (s, k)
        ``|f(theta_hat + s d) - f - s J d| / |s J d|`` in Frobenius norms over all inputs and outputs, for each draw d.
    movement : Tensor, float64, shape (s, k)
        ``|s J d| / |f|``: how much the tangent model itself moves.
    """

    moved: str
    depth: int
    scales: Tensor
    distance: Tensor
    movement: Tensor

    @property
    def order(self) -> float:
        """Slope of the mean log distance in the log scale between the two smallest scales: 1 where both are small enough."""
        if len(self.scales) < 2:
            raise InputError("An order needs at least two scales.")
        place = self.scales.argsort()[:2]
        rise = self.distance.clamp(min=_TINY).log().mean(1)[place].diff()
        return float(rise / self.scales[place].log().diff())


def tangent_gaps(model: LinearModel, deviations: Tensor, *, scales: Sequence[float] = (1.0,)) -> tuple[TangentGap, ...]:
    """Compare the network with its tangent model along draws of the weights.

    Parameters
    ----------
    model : LinearModel
    deviations : Tensor, shape (k, P)
        Draws of the posterior minus its mean.
    scales : sequence of float
        Fractions of each draw; positive.

    Returns
    -------
    tuple of TangentGap
        For all weights together, then for each parameter alone, then for the parameters up to each depth (in the order of
        ``model.blocks``, the first and the last left out, since these are told already).

    Raises
    ------
    InputError
        For draws of another size, or scales that are not positive.
    """
    if deviations.ndim != 2 or deviations.shape[1] != len(model.weights):
        raise InputError(f"Draws have shape {tuple(deviations.shape)}, but the model has {len(model.weights)} weights.")
    if not scales or min(scales) <= 0:
        raise InputError(f"Scales of a draw are positive numbers, not {tuple(scales)}.")
    draws, last = deviations.to(model.weights), len(model.blocks) - 1
    steps = torch.tensor(scales, dtype=torch.float64)
    gaps = [_gap(model, draws, steps, moved="all", depth=last)]
    for depth, block in enumerate(model.blocks):
        alone = torch.zeros_like(draws)
        alone[:, block.slice] = draws[:, block.slice]
        gaps.append(_gap(model, alone, steps, moved=block.name, depth=depth))
    for depth, block in enumerate(model.blocks[1:-1], 1):
        below = draws.clone()
        below[:, block.slice.stop :] = 0
        gaps.append(_gap(model, below, steps, moved=f"up to {block.name}", depth=depth))
    return tuple(gaps)


@torch.no_grad()
def _gap(model: LinearModel, draws: Tensor, scales: Tensor, *, moved: str, depth: int) -> TangentGap:
    outputs, jacobian = model.at()
    tangent = jacobian(draws).double()
    distance = torch.empty(len(scales), len(draws), dtype=torch.float64)
    for j, draw in enumerate(draws):
        for i, scale in enumerate(scales.tolist()):
            leaves = model.network.leaves(model.weights + scale * draw)
            change = model.network(model.inputs, *leaves).reshape(outputs.shape).double() - outputs.double()
            distance[i, j] = (change - scale * tangent[j]).norm() / (scale * tangent[j]).norm().clamp(min=_TINY)
    movement = scales[:, None] * tangent.flatten(1).norm(dim=1).cpu() / outputs.double().norm().cpu().clamp(min=_TINY)
    return TangentGap(moved, depth, scales, distance, movement)
