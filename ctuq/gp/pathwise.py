"""Kernel hyperparameters on all data: evidence gradients from pathwise solves that warm-start each other (Lin et al. 2024)."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ctuq.gp.exact import ConjugateGradients
from ctuq.gp.hyperparameters import LearnedProcess, evidence_slope
from ctuq.gp.kernels import Kernel
from ctuq.gp.operator import KernelOperator, check_data
from ctuq.gp.paths import prior_paths
from ctuq.gp.regression import product_type
from ctuq.linops.precondition import Nystrom

_MOVED = 0.3
_FLAT, _QUIET = 1e-3, 3


@dataclass(frozen=True)
class Pathwise:
    """Settings of `maximise_pathwise`.

    Parameters
    ----------
    probes : int
        Frozen draws of ``N(0, H)`` that estimate the trace.
    steps : int
        Most steps of Adam.
    rate : float
        Its step in log hyperparameters, falling to a tenth.
    features : int
        Of the prior draws.
    least_noise : float
        Smallest noise variance, as a fraction of the mean square of y.
    solver : ConjugateGradients
    """

    probes: int = 16
    steps: int = 50
    rate: float = 0.1
    features: int = 2000
    least_noise: float = 1e-4
    solver: ConjugateGradients = field(default_factory=lambda: ConjugateGradients(tolerance=0.1))


def pathwise_slope(kernel: Kernel, sigma2: float, x: Tensor, a: Tensor, z: Tensor) -> Tensor:
    """Gradient of the log evidence in (psi, log sigma2): ``(a^T dH a - mean of z^T dH z) / 2``.

    Parameters
    ----------
    a : Tensor, float64, shape (n,)
        ``H^-1 y``.
    z : Tensor, float64, shape (k, n)
        ``H^-1 xi`` for draws ``xi ~ N(0, H)``: ``E z z^T = H^-1``.
    """
    return evidence_slope(kernel, sigma2, x, lambda part: torch.outer(a[part], a) - z[:, part].T @ z / len(z)) / 2


def maximise_pathwise(
    kernel: Kernel, sigma2: float, x: Tensor, y: Tensor, *, settings: Pathwise | None = None, rng: torch.Generator
) -> LearnedProcess:
    """Follow the evidence's gradient with Adam; nothing larger than K in the products' type is stored.

    The draws ``xi = f_0(x) + e`` are frozen: random features and noise move with the hyperparameters. Each solve starts from
    the last one's, and the preconditioner's sketch is kept until a hyperparameter has moved by more than 30 %. It stops when no
    slope exceeds 1e-3 nats a datum for three steps.

    Parameters
    ----------
    kernel, sigma2
        Where to start.
    x : Tensor, shape (n, d)
    y : Tensor, shape (n,)
        Targets minus the prior mean.
    settings : Pathwise, optional
    rng : torch.Generator

    Raises
    ------
    InputError
        If data do not fit.
    """
    check_data(kernel, sigma2, x, y)
    settings = settings or Pathwise()
    x, y = x.double(), y.double()
    least = math.log(settings.least_noise * float(y.square().mean()))
    point = torch.cat([kernel.psi, kernel.psi.new_tensor([max(math.log(sigma2), least)])]).detach()
    prior = prior_paths(kernel, x.shape[1], settings.probes, rng=rng, features=settings.features)
    white = torch.randn(settings.probes, len(x), generator=rng, device=rng.device, dtype=torch.float64).to(x.device)
    solved = torch.zeros(settings.probes + 1, len(x), dtype=torch.float64, device=x.device)
    state: tuple[Tensor, Nystrom] | None = None
    optimiser = torch.optim.Adam([point], lr=settings.rate, betas=(0.9, 0.99))
    history: list[float] = []
    for step in range(settings.steps):
        here, noise = kernel.at(point[:-1].clone()), float(point[-1].exp())
        K = KernelOperator(here, x, noise=noise, dtype=product_type(here, noise, x))
        if state is None or float((point - state[0]).abs().max()) > _MOVED:
            state = point.clone(), settings.solver.sketch(K, rng=rng)
        targets = torch.cat([y[None], prior.at(here)(x) + noise**0.5 * white])
        solved = solved + settings.solver.with_sketch(K, state[1])(targets - K.exact(solved)).value
        slope = pathwise_slope(here, noise, x, solved[0], solved[1:])
        history.append(float(slope.abs().max()) / len(x))
        if len(history) >= _QUIET and max(history[-_QUIET:]) < _FLAT:
            break
        point.grad = -slope
        optimiser.param_groups[0]["lr"] = settings.rate * 10 ** (-step / settings.steps)
        optimiser.step()
        point[-1].clamp_(min=least)
    converged = max(history[-_QUIET:]) < _FLAT
    return LearnedProcess(kernel.at(point[:-1].clone()), float(point[-1].exp()), None, tuple(history), converged)
