"""Kernel hyperparameters by the evidence: exactly on subsets of the data, or by pathwise gradients on all of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

from ctuq.errors import CtuqError
from ctuq.gp.kernels import Kernel
from ctuq.gp.operator import KernelOperator, check_data, slices
from ctuq.linops.gaussian import log_evidence

_RANGE = math.log(1e4)


@dataclass(frozen=True, eq=False)
class LearnedProcess:
    """Hyperparameters at a maximum of the evidence.

    Parameters
    ----------
    kernel : Kernel
    sigma2 : float
        Noise variance.
    log_evidence : float or None
        Of the last subset, nats; None where only its gradient was followed.
    trajectory : tuple of float
        Negative log evidence at each evaluation, or norms of its gradient where only that is known.
    converged : bool
    """

    kernel: Kernel
    sigma2: float
    log_evidence: float | None
    trajectory: tuple[float, ...]
    converged: bool


def maximise_exact(
    kernel: Kernel, sigma2: float, x: Tensor, y: Tensor, *, steps: int = 100, least_noise: float = 1e-4
) -> LearnedProcess:
    """Maximise the exact evidence by L-BFGS on the logarithms of all hyperparameters: n^3 operations a step, float64.

    Parameters
    ----------
    kernel : Kernel
        Where the search starts; each hyperparameter stays within a factor of 10,000 of it.
    sigma2 : float
        Noise variance at the start.
    x : Tensor, shape (n, d)
    y : Tensor, shape (n,)
        Targets minus the prior mean.
    steps : int
        Most iterations; reaching them is reported by ``converged``.
    least_noise : float
        Smallest noise variance, as a fraction of the mean square of y: solves in float32 need some noise.

    Raises
    ------
    InputError
        If shapes do not fit or a start is not positive.
    """
    check_data(kernel, sigma2, x, y)
    x, y = x.double(), y.double()
    start = np.append(kernel.psi.detach().cpu().numpy(), math.log(sigma2))
    history: list[float] = []

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        psi = torch.tensor(point, device=x.device)
        try:
            value, slope = exact_evidence(kernel.at(psi[:-1]), float(psi[-1].exp()), x, y)
        except CtuqError:
            history.append(math.inf)
            return 1e12, np.zeros_like(point)
        history.append(-value)
        return -value, -slope.cpu().numpy()

    least = math.log(least_noise * float(y.square().mean()))
    start[-1] = max(start[-1], least)
    bounds = [(s - _RANGE, s + _RANGE) for s in start]
    bounds[-1] = (least, bounds[-1][1])
    options = {"maxiter": steps, "ftol": 1e-8, "gtol": 1e-3}
    found = scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    psi = torch.tensor(found.x, device=x.device)
    return LearnedProcess(kernel.at(psi[:-1]), float(psi[-1].exp()), -float(found.fun), tuple(history), bool(found.success))


def maximise_on_subsets(
    kernel: Kernel, sigma2: float, x: Tensor, y: Tensor, *, rows: int = 2000, repeats: int = 1, rng: torch.Generator
) -> LearnedProcess:
    """Hyperparameters of random subsets of ``rows`` data, their logarithms averaged over ``repeats``; converged if all are.

    Parameters
    ----------
    kernel : Kernel
    sigma2 : float
        Noise variance; it and the kernel are where each search begins.
    x : Tensor, shape (n, d)
    y : Tensor, shape (n,)
    rows : int
        Data of a subset.
    repeats : int
        How many subsets.
    rng : torch.Generator
    """
    check_data(kernel, sigma2, x, y)
    found = []
    for _ in range(repeats):
        index = torch.randperm(len(x), generator=rng, device=rng.device)[:rows].to(x.device)
        found.append(maximise_exact(kernel, sigma2, x[index], y[index]))
    psi = torch.stack([one.kernel.psi for one in found]).mean(0)
    noise = math.exp(sum(math.log(one.sigma2) for one in found) / len(found))
    trajectory = tuple(value for one in found for value in one.trajectory)
    return LearnedProcess(kernel.at(psi), noise, found[-1].log_evidence, trajectory, all(one.converged for one in found))


def exact_evidence(kernel: Kernel, sigma2: float, x: Tensor, y: Tensor) -> tuple[float, Tensor]:
    """Log evidence and its gradient in (log hyperparameters of the kernel, log noise variance), float64.

    ``d log p = 1/2 sum (a a^T - H^-1) dH`` with ``H = K + sigma2 I``, ``a = H^-1 y``; dense Cholesky.

    Parameters
    ----------
    kernel : Kernel
    sigma2 : float
        Noise variance.
    x : Tensor, shape (n, d)
    y : Tensor, shape (n,)

    Returns
    -------
    value : float
        In nats.
    gradient : Tensor, float64
    """
    K = KernelOperator(kernel, x, noise=sigma2).dense()
    value, L, a = log_evidence(K, y)
    del K
    M = torch.outer(a, a) - torch.cholesky_inverse(L)
    return value, evidence_slope(kernel, sigma2, x, lambda part: M[part]) / 2


def evidence_slope(kernel: Kernel, sigma2: float, x: Tensor, weights: Callable[[slice], Tensor]) -> Tensor:
    """``sum_ij M_ij dH_ij`` in (psi, log sigma2) for a symmetric M given by blocks of rows: nothing of size n^2 is stored."""
    psi = kernel.psi.detach().requires_grad_()
    slope = torch.zeros_like(psi)
    trace = torch.zeros((), dtype=psi.dtype, device=psi.device)
    for part in slices(len(x)):
        M = weights(part)
        with torch.enable_grad():
            total = (M * kernel.at(psi)(x[part], x)).sum()
        slope += torch.autograd.grad(total, psi)[0]
        trace += M[:, part].diagonal().sum()
    return torch.cat([slope, sigma2 * trace[None]])
