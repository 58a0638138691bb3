"""Where a search for hyperparameters starts."""

import math

import torch

from ctuq.errors import InputError
from ctuq.laplace.priors import Prior
from ctuq.laplace.problem import Point, Problem


def first_point(problem: Problem, prior: Prior, *, rng: torch.Generator, draws: int = 8) -> Point:
    """Where a search starts: the prior explains the target's variance, and learned noise is a tenth of that.

    With labels, the prior's whitened outputs have variance 1. The scale of the prior is measured on a few of its draws.
    """
    psi = prior.start()
    domain = problem.features.domain
    sizes = problem.features(prior.root(domain.randn(draws, rng=rng), psi).to(domain.dtype)).double()
    spread = float(sizes.square().mean())
    variance = float(problem.target.square().mean()) if problem.labels is None else 1.0
    if not (spread > 0 and variance > 0):
        raise InputError("Features or targets are all zero: there is nothing to learn from.")
    unknown = problem.sigma2.isnan()
    sigma2 = torch.where(unknown, 0.1 * variance, problem.sigma2)
    return Point(psi + prior.is_variance * math.log(variance / spread), sigma2)
