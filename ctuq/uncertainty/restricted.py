"""The network's Laplace approximation with less in it: what evidence and covariance of all weights are compared with."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ctuq.errors import InputError
from ctuq.laplace import DiagonalPrior
from ctuq.laplace.evidence.dense import Evaluation, ExactExpectation
from ctuq.laplace.priors.sensitivity import pair_products
from ctuq.laplace.system.problem import Point, System
from ctuq.linops.jacobian.network import Jacobian, weight_names
from ctuq.uncertainty.estimate import Evidence, EvidenceOf
from ctuq.uncertainty.model.linear import ImageModel
from ctuq.uncertainty.model.route import Route

_PROBES, _TOGETHER = 256, 32


OF_WEIGHTS = ("laplace", "last-layer", "plug-in")
"""Kinds of error bars that take the way of the network's Laplace approximation."""
NOTES: dict[str | None, tuple[str, ...]] = {
    "last-layer": ("The error bars let the last layer of the network alone be wrong, and are for comparison.",),
    "plug-in": ("The evidence is that of the trained weights, not of the linear model's: the error bars are for comparison.",),
    "diagonal": ("The error bars take weights for independent given the rays, and are for comparison.",),
}
"""What to know of error bars of such kinds."""


def restricted(kind: str | None, network: nn.Module) -> tuple[list[str] | None, EvidenceOf | None]:
    """Of a kind of error bars: the weights that may be wrong (None for all), and the evidence (None for the exact one)."""
    names = weight_names(network)
    weights = torch.cat([network.get_parameter(name).detach().reshape(-1) for name in names])
    return names[-1:] if kind == "last-layer" else None, partial(PlugIn, weights=weights) if kind == "plug-in" else None


def routed(way: Route, kind: str | None, network: nn.Module) -> Route:
    """A route with no more directions than a kind of error bars has.

    Raises
    ------
    InputError
        If the kind needs the exact evidence, and memory is short.
    """
    names, evidence_by = restricted(kind, network)
    if evidence_by is not None and not way.exact_evidence:
        raise InputError(
            f"Error bars of the kind {kind} need the exact evidence, which does not fit here; give a smaller --size."
        )
    if names is None:
        return way
    return replace(way, rank=min(way.rank, sum(network.get_parameter(name).numel() for name in names)))


class PlugIn(ExactExpectation):
    """The evidence at the trained weights, as in Antoran et al. 2022, in place of the linear model's own most probable ones.

    ``log p(y | f) - 1/2 theta^T Sigma^-1 theta - 1/2 log det K``: misfit and size of the trained weights stand for the
    quadratic form of the linear model, and floors have nothing to explain. The search sees this; what is told of the point
    where it ends is the exact evidence.

    Parameters
    ----------
    model : ImageModel
        Of the rays that are fitted.
    weights : Tensor, shape (P,)
        Trained ones.
    """

    def __init__(self, model: ImageModel, weights: Tensor):
        super().__init__(model.problem(), model.prior, components=model.components())
        self._of, self._weights = model.prior, weights.double()[None]
        shown = model.matrix((model.image.double() - model.mean).reshape(1, -1))[0]
        self._misfit = float((model.target - shown).square().sum())

    def value_and_slope(self, point: Point) -> Evaluation:
        """As of the exact evidence, with misfit and penalty of the given weights."""
        system, own = System(self._problem, self._prior, point), self._of.of_weights(point.psi)
        parts = self._parts(system, False)
        prior = self._of.factor.prior
        pulled = prior.precision(self._weights, own)
        penalties = torch.zeros_like(parts.dimension)
        count = len(prior.members)
        slopes = pair_products(prior, own, pulled)[:, 0, 0]
        penalties[:count], tail = slopes[:count], len(parts.dimension) - len(slopes) + count
        penalties[tail:] = slopes[count:]
        misfit = (self._misfit / point.sigma2).cpu()
        penalty = float((pulled * self._weights).sum())
        value = system.log_density(misfit) - 0.5 * penalty - 0.5 * parts.log_det
        noise = misfit - (self._problem.counts - parts.noise_dimension)
        total = float(parts.dimension[self._prior.is_variance].sum())
        return value, torch.cat([penalties - parts.dimension, noise]) / 2, total


def diagonal_deviations(
    model: ImageModel, evidence: Evidence, jacobian: Jacobian, scale: float, *, count: int, rng: torch.Generator
) -> Tensor:
    """Draws (count, y, x) of the image about its mean, where weights are independent given the rays: a diagonal Laplace.

    A weight's precision is its prior's and that of the rays, ``sum_i w_i (A J)_ip^2 / sigma^2``, by 256 random signs (Bekas
    et al. 2007).

    Parameters
    ----------
    model : ImageModel
        Of the fitted rays.
    evidence : Evidence
        Of all weights.
    jacobian : Jacobian
    scale : float
        Of the image over the network's output.
    count : int
    rng : torch.Generator

    Raises
    ------
    InputError
        For a prior of the weights that is not diagonal.
    """
    prior = model.factor.prior
    if not isinstance(prior, DiagonalPrior):
        raise InputError("A diagonal Laplace takes independent weights; take the prior isotropic, layerwise or g.")
    shape, size = model.image.shape, jacobian.domain.size
    energy = torch.zeros(size, device=model.image.device)
    for _ in range(_PROBES // _TOGETHER):
        signs = torch.randint(2, (_TOGETHER, len(model.target)), generator=rng, device=rng.device).to(energy) * 2 - 1
        energy += (scale * jacobian.T(model.matrix.fast_transposed(signs).reshape(-1, *shape))).square().sum(0) / _PROBES
    own = prior.covariance(torch.ones(1, size, dtype=torch.float64), model.prior.of_weights(evidence.psi))[0]
    variance = 1 / (1 / own.clamp_min(1e-300) + energy.double().cpu() / evidence.sigma2)
    draws = torch.randn(count, size, generator=rng, device=rng.device).to(energy) * variance.sqrt().to(energy)
    return torch.cat([scale * jacobian(part) for part in draws.split(_TOGETHER)])
