"""The evidence of a Gaussian-linear model in its fixed-component form, and its maximiser."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

from ctuq.errors import CtuqError
from ctuq.laplace.priors.diagonal import Prior
from ctuq.linops.gaussian import log_evidence

_SPAN = 25.0
_NEGLIGIBLE, _MOST_FLOORS, _FLOOR_STEP = 12.0, 40, 2.0


@dataclass(frozen=True, eq=False)
class Evidence:
    """Hyperparameters at a maximum of the evidence.

    Parameters
    ----------
    psi : Tensor, float64
        Log hyperparameters of the prior.
    floors : tuple of float
        Variance of each misfit of the outputs, in the order given.
    sigma2 : float
        Noise variance of an observation of weight 1.
    value : float
        log p(t), nats, without any hyperprior.
    trajectory : tuple of float
        Objective at each evaluation.
    converged : bool
    """

    psi: Tensor
    floors: tuple[float, ...]
    sigma2: float
    value: float
    trajectory: tuple[float, ...]
    converged: bool

    def named(self, prior: Prior) -> dict[str, float]:
        """Hyperparameters by name, exponentiated."""
        return dict(zip(prior.names, self.psi.exp().tolist(), strict=True))


def maximise_dense(
    components: Tensor,
    t: Tensor,
    prior: Prior,
    *,
    misfits: Sequence[Tensor] = (),
    noise: Tensor | None = None,
    log_hyperprior: Callable[[Tensor], Tensor] | None = None,
    steps: int = 60,
) -> Evidence:
    """Maximise the evidence over all hyperparameters by L-BFGS on their logarithms.

    ``K = sum_c a_c(psi) K_c + sum_f floor_f misfit_f + sigma2 * diag(noise)``; with ``M = K^-1 - a a^T`` and ``a = K^-1 t``
    the gradient is ``d(-log p)/d a_c = 1/2 <M, K_c>`` and chains through ``prior.coefficients``.

    Parameters
    ----------
    components : Tensor, float64, shape (c, m, m)
        ``prior.components(features)``.
    t : Tensor, float64, shape (m,)
        Target of the linear model.
    prior : Prior
    misfits : sequence of Tensor, float64, shape (m, m)
        Gram matrices of what the prior cannot express, such as white errors of the outputs: honest floors, learned with the
        rest.
    noise : Tensor, float64, shape (m,), optional
        Relative noise variances (1 / weight); ones if None.
    log_hyperprior : callable, optional
        ``log p(psi)`` of the coefficients' hyperparameters, differentiable.
    steps : int
        Most iterations; reaching them is reported by ``converged``.

    Returns
    -------
    Evidence
    """
    noise = torch.ones_like(t) if noise is None else noise
    start, scale = _start(components, t, prior, misfits)
    history: list[float] = []

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        psi = point[: len(prior.names)]
        coefficients = torch.cat([prior.coefficients(psi), point[len(prior.names) :].exp()])
        K = torch.tensordot(coefficients[: len(components)].detach(), components, 1)
        for factor, matrix in zip(coefficients[len(components) : -1].detach(), misfits, strict=True):
            K = K + factor * matrix
        K.diagonal().add_(coefficients[-1].detach() * noise)
        try:
            value, L, a = log_evidence(K, t)
        except CtuqError:
            history.append(math.inf)
            return 1e12, np.zeros_like(x)
        M = torch.cholesky_inverse(L)
        M.sub_(torch.outer(a, a))
        slopes = torch.tensordot(components, M, 2)
        slopes = torch.cat([slopes, *((m * M).sum()[None] for m in misfits), (M.diagonal() * noise).sum()[None]]) / 2
        hyper = torch.zeros((), dtype=torch.float64) if log_hyperprior is None else log_hyperprior(psi)
        (gradient,) = torch.autograd.grad((coefficients * slopes).sum() - hyper, point)
        total = -value - float(hyper.detach())
        history.append(total)
        return total, gradient.numpy()

    # Near the optimum one nat in 1e9 of the objective is far below what any figure shows.
    found = scipy.optimize.minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(s - _SPAN, s + w) for s, w in zip(start, scale, strict=True)],
        options={"maxiter": steps, "ftol": 1e-9, "gtol": 1e-3},
    )
    psi = torch.tensor(found.x[: len(prior.names)], dtype=torch.float64)
    hyper = 0.0 if log_hyperprior is None else float(log_hyperprior(psi).detach())
    floors = tuple(float(f) for f in np.exp(found.x[len(psi) : -1]))
    return Evidence(psi, floors, float(np.exp(found.x[-1])), float(-found.fun - hyper), tuple(history), bool(found.success))


def expected_floor(K: Tensor, misfit: Tensor, t: Tensor, lowest: float) -> float:
    """Posterior mean of the variance of a misfit, everything else fixed.

    The evidence is flat below the misfit that the data can detect, so that its maximiser may be any small number, and joint
    densities collapse along directions of no variance. The mean under a log-uniform prior from ``lowest`` upwards is an honest
    floor: about the largest misfit that the data do not exclude, over the logarithm of the range below it.

    Parameters
    ----------
    K : Tensor, float64, shape (m, m)
        Evidence covariance without the misfit.
    misfit : Tensor, float64, shape (m, m)
        Gram matrix of the misfit at variance 1.
    t : Tensor, float64, shape (m,)
    lowest : float
        Where the prior begins, such as the rounding of the outputs.
    """
    floors, values = [], []
    floor = lowest
    while not values or (values[-1] > max(values) - _NEGLIGIBLE and len(values) < _MOST_FLOORS):
        floors.append(floor)
        values.append(log_evidence(K + floor * misfit, t)[0])
        floor *= _FLOOR_STEP
    weights = np.exp(np.array(values) - max(values))
    return float(weights @ np.array(floors) / weights.sum())


def _start(components: Tensor, t: Tensor, prior: Prior, misfits: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Signal variance shared equally among the components, noise and floor a thousandth of it; and how far each may rise."""
    variance = float(t.var()) if len(t) > 1 else float(t.square().mean())
    sizes = components.diagonal(dim1=1, dim2=2).mean(1)
    psi = prior.start()
    share = variance / float((prior.coefficients(psi) * sizes).sum())
    psi = psi + prior.is_variance * math.log(share)
    if prior.is_variance.all() and len(psi) == len(sizes):
        # A block whose features are all zero would start, and stay, at a variance that overflows float32.
        psi = torch.log(variance / len(sizes) / sizes.clamp(min=1e-9 * float(sizes.max())))
    tail = [math.log(1e-3 * variance)]
    for misfit in reversed(misfits):
        tail.insert(0, math.log(1e-3 * variance / float(misfit.diagonal().mean())))
    rises = np.where(np.append(prior.is_variance.numpy(), [True] * len(tail)), 15.0, 4.0)
    return np.concatenate([psi.numpy(), tail]), rises
