"""Gaussian priors over network weights as non-negative sums of fixed components.

A prior covariance is ``Sigma(psi) = sum_c a_c(psi) D_c``: the ``D_c`` never change, so the Gram matrices of features,
``K_c = H D_c H^T``, are computed once and hyperparameter learning is dense algebra on them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.laplace.gram import gram
from ctuq.linops.jacobian import Block


class Prior(Protocol):
    """What evidence and posterior ask of a prior; ``psi`` is the vector of log hyperparameters (float64)."""

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each entry of ``psi``."""
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
        """A square root of ``Sigma(psi)`` applied to ``(k, P)``: standard normal draws become prior draws."""
        ...


@dataclass(frozen=True, eq=False)
class DiagonalPrior:
    """``Sigma = diag(s_g d_i)``: one variance ``s_g`` for each group of weights, times a fixed diagonal.

    Parameters
    ----------
    names : tuple of str
        One for each group.
    groups : tuple of slice
        The weights of each group in the flat vector; together they cover it.
    diagonal : Tensor, shape (P,), optional
        Fixed factors ``d_i``; ones if None.
    """

    names: tuple[str, ...]
    groups: tuple[slice, ...]
    diagonal: Tensor | None = None

    @property
    def is_variance(self) -> Tensor:
        return torch.ones(len(self.groups), dtype=torch.bool)

    def start(self) -> Tensor:
        return torch.zeros(len(self.groups), dtype=torch.float64)

    def components(self, features: Tensor) -> Iterator[Tensor]:
        for group in self.groups:
            part = features[:, group]
            yield gram(part if self.diagonal is None else part * self.diagonal[group].sqrt())

    def coefficients(self, psi: Tensor) -> Tensor:
        return psi.exp()

    def covariance(self, vectors: Tensor, psi: Tensor) -> Tensor:
        return vectors * self._variances(psi).to(vectors)

    def root(self, vectors: Tensor, psi: Tensor) -> Tensor:
        return vectors * self._variances(psi).sqrt().to(vectors)

    def _variances(self, psi: Tensor) -> Tensor:
        parts = [psi[i].exp().expand(g.stop - g.start) for i, g in enumerate(self.groups)]
        variances = torch.cat(parts)
        return variances if self.diagonal is None else variances * self.diagonal.double().to(variances)


def isotropic(blocks: Sequence[Block]) -> DiagonalPrior:
    """One variance for all weights."""
    return DiagonalPrior(("variance",), (slice(0, blocks[-1].slice.stop),))


def layerwise(blocks: Sequence[Block]) -> DiagonalPrior:
    """One variance for the weights of each layer."""
    return DiagonalPrior(tuple(f"variance {b.name}" for b in blocks), tuple(b.slice for b in blocks))


def g_prior(blocks: Sequence[Block], features: Tensor) -> DiagonalPrior:
    """One variance for all weights, each divided by the energy ``sum_n H_ni^2`` of the features it multiplies.

    Unchanged by a rescaling of weights that the network undoes, such as before a normalisation layer. Weights whose features
    are never active (energy below 1e-12 of the largest) get no prior variance.
    """
    energy = torch.stack([(rows.double() ** 2).sum(0) for rows in features.split(512)]).sum(0)
    alive = energy > 1e-12 * energy.max()
    diagonal = torch.where(alive, 1 / torch.where(alive, energy, 1.0), 0.0)
    return DiagonalPrior(("g",), (slice(0, blocks[-1].slice.stop),), diagonal)


class FilterProcess:
    """Each convolution filter is a Gaussian process over its taps with an exponential (Matern-1/2) kernel.

    Taps of one filter at distance r have covariance ``s_b exp(-r / l_b)``; filters are independent; every block has its own
    variance and lengthscale (in taps). Blocks of single taps have a variance only. A 3 x 3 filter has six tap distances, so a
    block has at most six components.

    Parameters
    ----------
    blocks : sequence of Block
        Convolution weights ``(out, in, *taps)``.

    Raises
    ------
    InputError
        If a block is not a convolution's weight.
    """

    def __init__(self, blocks: Sequence[Block]):
        if any(len(b.shape) < 3 for b in blocks):
            raise InputError("The filter process prior needs convolution weights; use a layerwise prior for linear layers.")
        self._blocks = tuple(blocks)
        self._distances = [_tap_distances(b.shape[2:]) for b in blocks]
        self.names = tuple(f"variance {b.name}" for b in blocks) + tuple(
            f"lengthscale {b.name}" for b, r in zip(blocks, self._distances, strict=True) if len(r) > 1
        )
        self._lengthscale = []
        position = len(blocks)
        for r in self._distances:
            self._lengthscale.append(position if len(r) > 1 else None)
            position += len(r) > 1

    @property
    def is_variance(self) -> Tensor:
        return torch.arange(len(self.names)) < len(self._blocks)

    def start(self) -> Tensor:
        return torch.zeros(len(self.names), dtype=torch.float64)

    def components(self, features: Tensor) -> Iterator[Tensor]:
        for block, distances in zip(self._blocks, self._distances, strict=True):
            taps = features[:, block.slice].reshape(len(features), -1, len(distances))
            for value in distances.unique():
                pairs = (distances == value).nonzero().tolist()
                yield _sum_over_pairs(taps, [(i, j) for i, j in pairs if i <= j])

    def coefficients(self, psi: Tensor) -> Tensor:
        parts = []
        for b, distances in enumerate(self._distances):
            where = self._lengthscale[b]
            decay = torch.zeros(1, dtype=psi.dtype) if where is None else distances.unique() * (-psi[where]).exp()
            parts.append((psi[b] - decay).exp())
        return torch.cat(parts)

    def covariance(self, vectors: Tensor, psi: Tensor) -> Tensor:
        return self._by_filter(vectors, psi, lambda kernel: kernel)

    def root(self, vectors: Tensor, psi: Tensor) -> Tensor:
        return self._by_filter(vectors, psi, lambda kernel: torch.linalg.cholesky(kernel).T)

    def _by_filter(self, vectors: Tensor, psi: Tensor, of_kernel) -> Tensor:
        out = torch.empty_like(vectors)
        for b, (block, distances) in enumerate(zip(self._blocks, self._distances, strict=True)):
            where = self._lengthscale[b]
            decay = torch.zeros_like(distances) if where is None else distances * (-psi[where]).exp()
            matrix = of_kernel((psi[b] - decay).exp()).to(vectors)
            taps = vectors[:, block.slice].reshape(len(vectors), -1, len(distances))
            out[:, block.slice] = (taps @ matrix).reshape(len(vectors), -1)
        return out


def _tap_distances(taps: Sequence[int]) -> Tensor:
    grid = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in taps), indexing="ij"), -1)
    points = grid.reshape(-1, len(taps))
    return torch.cdist(points, points).round(decimals=9)


def _sum_over_pairs(taps: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    """``sum over pairs (i, j) of H_i H_j^T`` and, for i != j, its transpose, with H_i the features (m, filter) of tap i."""
    first = torch.cat([taps[..., i] for i, _ in pairs], 1)
    if all(i == j for i, j in pairs):
        return gram(first)
    return gram(first, torch.cat([taps[..., j] for _, j in pairs], 1))
