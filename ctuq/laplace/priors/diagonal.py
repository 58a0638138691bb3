"""Gaussian priors over network weights as non-negative sums of fixed components.

A prior covariance is ``Sigma(psi) = sum_c a_c(psi) D_c``: the ``D_c`` never change, so the Gram matrices of features,
``K_c = H D_c H^T``, are computed once and hyperparameter learning is dense algebra on them.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.laplace.priors.blocks import Groups, HasBlocks, blocks_of_weights, grouped
from ctuq.laplace.priors.filters import FilterProcess
from ctuq.linops.gram import gram
from ctuq.linops.jacobian.network import WeightBlock

__all__ = ["DiagonalPrior", "FilterProcess", "Prior", "blocks_prior", "g_prior", "isotropic", "layerwise"]

_log = logging.getLogger(__name__)


class Prior(Protocol):
    """What evidence and posterior ask of a prior; ``psi`` is the vector of log hyperparameters (float64).

    The first ``len(members)`` entries of ``psi`` are the log variances, in the order of ``members``.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each entry of ``psi``."""
        ...

    @property
    def members(self) -> tuple[tuple[slice, ...], ...]:
        """The weights that each variance governs, as slices of the flat vector."""
        ...

    def start(self) -> Tensor:
        """Where the search for ``psi`` starts, up to one common factor of all variances."""
        ...

    @property
    def is_variance(self) -> Tensor:
        """Boolean: which entries of ``psi`` are log variances (the rest are log lengthscales)."""
        ...

    def components(self, features: Tensor) -> Iterator[Tensor]:
        """``features D_c features^T`` in float64 for each component, from features ``(m, P)``."""
        ...

    def coefficients(self, psi: Tensor) -> Tensor:
        """``a_c(psi)``, differentiable."""
        ...

    def covariance(self, vectors: Tensor, psi: Tensor) -> Tensor:
        """``Sigma(psi)`` applied to weight vectors ``(k, P)``."""
        ...

    def root(self, vectors: Tensor, psi: Tensor) -> Tensor:
        """R of ``Sigma(psi) = R R^T`` applied to ``(k, P)``: standard normal draws become prior draws."""
        ...

    def root_transpose(self, vectors: Tensor, psi: Tensor) -> Tensor:
        """``R^T`` applied to ``(k, P)``."""
        ...

    def precision(self, vectors: Tensor, psi: Tensor) -> Tensor:
        """``Sigma(psi)^-1`` applied to ``(k, P)``; zero for weights without prior variance."""
        ...


@dataclass(frozen=True, eq=False)
class DiagonalPrior:
    """``Sigma = diag(s_g d_i)``: one variance ``s_g`` for each group of weights, times a fixed diagonal.

    Parameters
    ----------
    names : tuple of str
        One for each group.
    groups : tuple of slice, or of tuples of slice
        The weights of each group in the flat vector; together they cover it.
    diagonal : Tensor, shape (P,), optional
        Fixed factors ``d_i``, not negative; ones if None.

    Raises
    ------
    InputError
        If the groups leave weights out or overlap, or the diagonal has another size or negative values.
    """

    names: tuple[str, ...]
    groups: tuple[slice | tuple[slice, ...], ...]
    diagonal: Tensor | None = None

    def __post_init__(self):
        end = 0
        for part in sorted((s for slices in self.members for s in slices), key=lambda s: s.start):
            if part.start != end:
                gap = sorted((end, part.start))
                raise InputError(f"Weights {gap[0]} to {gap[1]} are in no group of the prior, or in two.")
            end = part.stop
        if len(self.names) != len(self.groups):
            raise InputError(f"The prior has {len(self.groups)} groups, but {len(self.names)} names.")
        if self.diagonal is not None and (self.diagonal.shape != (end,) or not bool((self.diagonal >= 0).all())):
            raise InputError(f"The prior's diagonal has shape {tuple(self.diagonal.shape)}: give {end} values, none negative.")

    @property
    def members(self) -> tuple[tuple[slice, ...], ...]:
        return tuple((group,) if isinstance(group, slice) else group for group in self.groups)

    @property
    def is_variance(self) -> Tensor:
        return torch.ones(len(self.groups), dtype=torch.bool)

    def start(self) -> Tensor:
        return torch.zeros(len(self.groups), dtype=torch.float64)

    def components(self, features: Tensor) -> Iterator[Tensor]:
        scale = None if self.diagonal is None else self.diagonal.to(features.device).sqrt()
        for slices in self.members:
            yield torch.stack([gram(features[:, s] if scale is None else features[:, s] * scale[s]) for s in slices]).sum(0)

    def coefficients(self, psi: Tensor) -> Tensor:
        return psi.exp()

    def covariance(self, vectors: Tensor, psi: Tensor) -> Tensor:
        return self._scaled(vectors, psi, 1.0)

    def root(self, vectors: Tensor, psi: Tensor) -> Tensor:
        return self._scaled(vectors, psi, 0.5)

    def root_transpose(self, vectors: Tensor, psi: Tensor) -> Tensor:
        return self._scaled(vectors, psi, 0.5)

    def precision(self, vectors: Tensor, psi: Tensor) -> Tensor:
        return self._scaled(vectors, psi, -1.0)

    def _scaled(self, vectors: Tensor, psi: Tensor, power: float) -> Tensor:
        out = torch.empty_like(vectors)
        for value, slices in zip((power * psi.double()).exp().tolist(), self.members, strict=True):
            for s in slices:
                part = torch.mul(vectors[:, s], value, out=out[:, s])
                if self.diagonal is not None:
                    diagonal = self.diagonal[s].to(vectors)
                    part.mul_(diagonal.pow(power).masked_fill_(diagonal <= 0, 0.0))
        return out


def isotropic(model: HasBlocks | Sequence[WeightBlock]) -> DiagonalPrior:
    """One variance for all weights of a model, or of its blocks."""
    return DiagonalPrior(("variance",), (slice(0, blocks_of_weights(model)[-1].slice.stop),))


def layerwise(model: HasBlocks | Sequence[WeightBlock]) -> DiagonalPrior:
    """One variance for the weights of each layer of a model, or of its blocks."""
    blocks = blocks_of_weights(model)
    return DiagonalPrior(tuple(f"variance {b.name}" for b in blocks), tuple(b.slice for b in blocks))


def blocks_prior(model: HasBlocks | Sequence[WeightBlock], groups: Groups) -> DiagonalPrior:
    """One variance for each named group of parameters.

    Parameters
    ----------
    model : LinearModel or sequence of WeightBlock
    groups : mapping of str to sequence of str
        Names of parameters by name of group, as `ctuq.laplace.by_module` gives them.

    Raises
    ------
    InputError
        If the groups miss a parameter, have one twice, or name one that the model does not have.
    """
    members = grouped(blocks_of_weights(model), groups)
    slices = tuple(tuple(block.slice for block in blocks) for blocks in members.values())
    return DiagonalPrior(tuple(f"variance {name}" for name in members), slices)


class HasFeatures(HasBlocks, Protocol):
    """A linear model, seen as its weights and the energy of its features."""

    def energy(self, *, rng: torch.Generator | None, probes: int) -> Tensor:
        """``sum_n H_ni^2`` of each whitened feature, float64 (P,)."""
        ...


def g_prior(
    model: HasFeatures | Sequence[WeightBlock],
    features: Tensor | None = None,
    *,
    rng: torch.Generator | None = None,
    probes: int = 64,
) -> DiagonalPrior:
    """One variance for all weights, each divided by the energy ``sum_n H_ni^2`` of the features it multiplies.

    Unchanged by a rescaling of weights that the network undoes, such as before a normalisation layer. Weights whose features
    are never active (energy below rounding, eps^2 of the largest) get the variance of the one that is active least, and their
    number is logged: elsewhere these features may be active, and the data say nothing of them.

    Parameters
    ----------
    model : LinearModel or sequence of WeightBlock
        A model's energies are exact where that costs no more than the probes.
    features : Tensor, shape (m, P), optional
        The assembled features, if ``model`` is blocks.
    rng : torch.Generator, optional
        For the probes, which a model with many outputs needs.
    probes : int
        Random products; each energy then has a relative error of at most ``(2 / probes)^1/2``.

    Raises
    ------
    InputError
        For fewer than 64 probes, which would leave a random scale of 20 % on each feature; without ``rng`` where it is needed.
    """
    if probes < 64:
        raise InputError(f"The g-prior's scale from {probes} probes would be too random: take at least 64.")
    if not isinstance(model, Sequence):
        energy, rounding = model.energy(rng=rng, probes=probes), torch.finfo(_type_of(model)).eps
    elif features is not None:
        energy = torch.stack([(rows.double() ** 2).sum(0) for rows in features.split(512)]).sum(0)
        rounding = torch.finfo(features.dtype).eps
    else:
        raise InputError("A g-prior over blocks needs their features too; or give it the linear model.")
    # Energies of layers may differ by the square of what the scales of their weights do: each is judged by its own largest.
    largest = torch.zeros_like(energy)
    for block in blocks_of_weights(model):
        largest[block.slice] = energy[block.slice].max()
    alive = (energy > rounding**2 * largest) & (largest > rounding**2 * energy.max())
    dead = int((~alive).sum())
    if dead:
        told = "%d of %d weights multiply features that are never active: their variance is that of the least active one."
        _log.info(told, dead, len(energy))
    diagonal = 1 / torch.where(alive, energy, energy[alive].min() if alive.any() else 1.0)
    return DiagonalPrior(("g",), (slice(0, blocks_of_weights(model)[-1].slice.stop),), diagonal)


def _type_of(model: object) -> torch.dtype:
    """That of a model's weights, float32 where it does not say."""
    return getattr(getattr(model, "weights", None), "dtype", torch.float32)
