"""Representative data points: the randomly pivoted Cholesky factor of a kernel matrix, matrix never stored."""

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.gp.kernels import Kernel

_PROPOSALS = 128


@torch.no_grad()
def kernel_pivots(kernel: Kernel, x: Tensor, rank: int, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Low-rank factor of ``k(x, x)`` from columns drawn in proportion to what is not explained yet.

    Chen et al. 2025; drawn in blocks with rejection (Epperly et al. 2024), which leaves the distribution as it is.
    ``n rank`` values of the kernel and ``n rank^2`` operations.

    Parameters
    ----------
    kernel : Kernel
    x : Tensor, shape (n, d)
    rank : int
        Most columns; fewer come back where the matrix is explained to rounding before.

    Returns
    -------
    index : Tensor of int, shape (r,)
        The chosen points.
    factor : Tensor, float64, shape (n, r)
        ``factor factor^T`` is the best approximation of the matrix from these columns.

    Raises
    ------
    InputError
        If the rank is below 1.
    """
    if rank < 1:
        raise InputError(f"The rank of a factor is {rank}: give at least 1.")
    x = x.double()
    left = kernel.diagonal(x).clone()
    rounding = 100 * torch.finfo(torch.float64).eps * float(left.max())
    chosen: list[Tensor] = []
    factor = x.new_empty(len(x), min(rank, len(x)))
    done = 0
    while done < factor.shape[1] and bool(left.any()):
        places = torch.multinomial(left.to(rng.device), _PROPOSALS, replacement=True, generator=rng).to(x.device)
        columns = kernel(x, x[places]) - factor[:, :done] @ factor[places, :done].T
        taken = _accept(columns[places], left[places], rounding, rng)[: factor.shape[1] - done]
        root = torch.linalg.cholesky(columns[places[taken]][:, taken])
        new = torch.linalg.solve_triangular(root, columns[:, taken].T, upper=False).T
        factor[:, done : done + len(taken)] = new
        done += len(taken)
        left = left - new.square().sum(1)
        left[places[taken]] = 0
        left[left < rounding] = 0
        chosen.append(places[taken])
    return torch.cat(chosen), factor[:, :done]


def _accept(block: Tensor, weights: Tensor, rounding: float, rng: torch.Generator) -> Tensor:
    """Places of the proposals that one-by-one sampling would have taken: what earlier ones explain is rejected."""
    thresholds = torch.rand(len(block), generator=rng, device=rng.device, dtype=torch.float64).to(block) * weights
    thresholds = thresholds.clamp(min=rounding / 2)
    block, taken = block.clone(), []
    for i in range(len(block)):
        if block[i, i] > thresholds[i]:
            taken.append(i)
            column = block[:, i] / block[i, i].sqrt()
            block -= torch.outer(column, column)
    return torch.tensor(taken, device=block.device, dtype=torch.long)
