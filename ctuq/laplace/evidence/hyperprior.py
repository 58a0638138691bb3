"""Priors of the hyperparameters: what is maximised is the evidence times them, by every route."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ctuq.laplace.evidence.sampled import Expectation
from ctuq.laplace.system.problem import Point

Hyperprior = Callable[[Tensor], Tensor]
"""``log p(psi)`` of a prior's log hyperparameters (d,), differentiable, up to a constant."""


def value_and_slope(hyperprior: Hyperprior | None, psi: Tensor) -> tuple[float, Tensor]:
    """``log p(psi)`` and its slope, float64 (d,); zeros without one."""
    if hyperprior is None:
        return 0.0, torch.zeros_like(psi)
    at = psi.detach().clone().requires_grad_(True)
    value = hyperprior(at)
    return float(value.detach()), torch.autograd.grad(value, at)[0]


def with_hyperprior(
    expectation: Callable[[Point], Expectation], hyperprior: Hyperprior | None
) -> Callable[[Point], Expectation]:
    """Expectations whose slope has the hyperprior's in it, so that every update finds the maximum of the product.

    With h the slope of ``log p(psi)`` a variance is stationary where ``q + 2 h = gamma``: a positive h is added to the penalty,
    a negative one to the effective dimension, which keeps both positive as MacKay's update needs them.
    """
    if hyperprior is None:
        return expectation

    def at(point: Point) -> Expectation:
        found = expectation(point)
        slope = 2 * value_and_slope(hyperprior, point.psi)[1].to(found.penalty)
        return replace(found, penalty=found.penalty + slope.clamp(min=0), dimension=found.dimension + (-slope).clamp(min=0))

    return at
