"""A Gaussian-process prior over the taps of convolution filters."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.laplace.priors.blocks import Groups, HasBlocks, blocks_of_weights, grouped
from ctuq.linops.gram import mirrored, pair_grams
from ctuq.linops.jacobian.network import WeightBlock

_ROUNDING = 1e-9


class FilterProcess:
    """Each convolution filter is a Gaussian process over its taps with an exponential (Matern-1/2) kernel.

    Taps of one filter at distance r have covariance ``s_b exp(-r / l_b)``; filters are independent; every group of blocks has
    its own variance and lengthscale (in taps). Single taps have a variance only. A 3 x 3 filter has six tap distances, so a
    group has at most six components.

    Parameters
    ----------
    model : LinearModel or sequence of WeightBlock
        All weights are of convolutions, ``(out, in, *taps)``.
    groups : mapping of str to sequence of str, optional
        Names of parameters that share hyperparameters, by name of group; each parameter alone if None.

    Raises
    ------
    InputError
        If a block is not a convolution's weight, or a group mixes filters of several sizes.
    """

    def __init__(self, model: HasBlocks | Sequence[WeightBlock], groups: Groups | None = None):
        blocks = blocks_of_weights(model)
        if any(len(b.shape) < 3 for b in blocks):
            raise InputError("The filter process prior needs convolution weights; use a layerwise prior for linear layers.")
        self._groups = grouped(blocks, {b.name: (b.name,) for b in blocks} if groups is None else groups)
        mixed = [name for name, members in self._groups.items() if len({b.shape[2:] for b in members}) > 1]
        if mixed:
            raise InputError(f"The group {mixed[0]!r} of the filter process mixes filters of several sizes: split it.")
        self._distances = [_tap_distances(members[0].shape[2:]) for members in self._groups.values()]
        long = [len(r) > 1 for r in self._distances]
        self.names = tuple(f"variance {name}" for name in self._groups) + tuple(
            f"lengthscale {name}" for name, several in zip(self._groups, long, strict=True) if several
        )
        self._lengthscale = [len(long) + sum(long[:i]) if several else None for i, several in enumerate(long)]

    @property
    def members(self) -> tuple[tuple[slice, ...], ...]:
        return tuple(tuple(b.slice for b in blocks) for blocks in self._groups.values())

    @property
    def is_variance(self) -> Tensor:
        return torch.arange(len(self.names)) < len(self._groups)

    def start(self) -> Tensor:
        return torch.zeros(len(self.names), dtype=torch.float64)

    def components(self, features: Tensor) -> Iterator[Tensor]:
        """``Phi D Phi^T`` (m, m) for the covariance D of each distance between taps: group by group, the nearest first."""
        # Distances do not change when a filter is mirrored: between even and odd combinations of its taps they are zero.
        m = len(features)
        for members, distances in zip(self._groups.values(), self._distances, strict=True):
            basis = _parities(members[0].shape[2:]).to(features.device)
            same = torch.stack([distances == value for value in distances.unique()]).to(basis)
            patterns = basis.T @ same @ basis
            pairs = [(a, b) for a, b in (patterns.abs().amax(0) > _ROUNDING).nonzero().tolist() if a <= b]
            products = torch.zeros(len(pairs), m, m, dtype=torch.float64, device=features.device)
            for block in members:
                pair_grams(features[:, block.slice].unflatten(1, (-1, len(basis))), basis, pairs, products)
            for product, (a, b) in zip(products, pairs, strict=True):
                product.copy_(mirrored(product) if a == b else product + product.T)
            weights = torch.stack([patterns[:, a, b] for a, b in pairs], 1)
            yield from torch.tensordot(weights, products, 1)

    def coefficients(self, psi: Tensor) -> Tensor:
        return torch.cat([self._decayed(psi, g, r.unique()) for g, r in enumerate(self._distances)])

    def kernel(self, psi: Tensor, group: int) -> Tensor:
        """Covariance of the taps of one filter of a group, (taps, taps), float64, differentiable."""
        return self._decayed(psi, group, self._distances[group])

    def filters(self, vectors: Tensor, group: int) -> list[Tensor]:
        """The filters of each block of a group in weight vectors ``(k, P)``: views (k, filters, taps)."""
        taps = len(self._distances[group])
        return [vectors[:, s].unflatten(1, (-1, taps)) for s in self.members[group]]

    def covariance(self, vectors: Tensor, psi: Tensor) -> Tensor:
        return self._by_filter(vectors, psi, lambda kernel: kernel)

    def root(self, vectors: Tensor, psi: Tensor) -> Tensor:
        return self._by_filter(vectors, psi, lambda kernel: torch.linalg.cholesky(kernel).T)

    def root_transpose(self, vectors: Tensor, psi: Tensor) -> Tensor:
        return self._by_filter(vectors, psi, torch.linalg.cholesky)

    def precision(self, vectors: Tensor, psi: Tensor) -> Tensor:
        return self._by_filter(vectors, psi, lambda kernel: torch.cholesky_inverse(torch.linalg.cholesky(kernel)))

    def _decayed(self, psi: Tensor, group: int, distances: Tensor) -> Tensor:
        where = self._lengthscale[group]
        decay = torch.zeros_like(distances) if where is None else distances * (-psi[where]).exp()
        return (psi[group] - decay).exp()

    def _by_filter(self, vectors: Tensor, psi: Tensor, of_kernel: Callable[[Tensor], Tensor]) -> Tensor:
        out = torch.empty_like(vectors)
        for g in range(len(self._groups)):
            matrix = of_kernel(self.kernel(psi, g)).to(vectors)
            for target, taps in zip(self.filters(out, g), self.filters(vectors, g), strict=True):
                target.copy_(taps @ matrix)
        return out


def _tap_distances(taps: Sequence[int]) -> Tensor:
    grid = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in taps), indexing="ij"), -1)
    points = grid.reshape(-1, len(taps))
    return torch.cdist(points, points).round(decimals=9)


def _parities(taps: Sequence[int]) -> Tensor:
    """Orthonormal combinations (in columns) of the taps of a filter, each even or odd along every axis; float64."""
    basis = torch.ones(1, 1, dtype=torch.float64)
    for n in taps:
        eye = torch.eye(n, dtype=torch.float64)
        half, mirror = eye[:, : n // 2], eye.flip(0)[:, : n // 2]
        even, odd = (half + mirror) / math.sqrt(2), (half - mirror) / math.sqrt(2)
        basis = torch.kron(basis, torch.cat([even, eye[:, n // 2 : n - n // 2], odd], 1))
    return basis
