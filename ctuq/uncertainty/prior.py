"""What an image is before any ray is seen, as a prior of the general engine: the network's share, and two floors.

The image is ``F c + u_1 + u_2``: coefficients ``c ~ N(0, C(psi))`` of the network's factor, and independent pixels of variances
``floor_f profile_f`` for what no weights explain: a white error, and edges that lie a little beside where the image has them,
whose error is the displacement times the image's slope.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ctuq.laplace.priors.variation import VariationPrior
from ctuq.linops.gaussian import stable_cholesky
from ctuq.uncertainty.factor import NetworkFactor

FLOORS = ("floor", "displacement")


@dataclass(frozen=True, eq=False)
class ImagePrior:
    """A prior over the latent vector ``[c, u_1, u_2]`` (r + 2 d), whose log hyperparameters are the weights' and the floors'.

    Log variances come first (of the weights, then of the floors), then the weights' other hyperparameters.

    Parameters
    ----------
    factor : NetworkFactor
    first : Tensor, float64
        Where the search for the hyperparameters starts, up to one factor of all variances.
    pixels : int
    """

    factor: NetworkFactor
    first: Tensor
    pixels: int

    @property
    def names(self) -> tuple[str, ...]:
        weights, n = self.factor.prior.names, self._variances
        return (*weights[:n], *FLOORS, *weights[n:])

    @property
    def members(self) -> tuple[tuple[slice, ...], ...]:
        floors, tail = self.floor_slices[: len(FLOORS)], self.floor_slices[len(FLOORS) :]
        return (((slice(0, self.factor.rank), *tail),) * self._variances) + tuple((s,) for s in floors)

    @property
    def is_variance(self) -> Tensor:
        return torch.arange(len(self.names)) < self._variances + len(FLOORS)

    @property
    def floor_slices(self) -> tuple[slice, ...]:
        """Where the pixels of each floor stand in a latent vector, and after them those of what the factor leaves out."""
        count = len(FLOORS) + (self.factor.rest is not None)
        starts = [self.factor.rank + f * self.pixels for f in range(count)]
        return tuple(slice(s, s + self.pixels) for s in starts)

    def start(self) -> Tensor:
        return self.first.clone()

    def of_weights(self, psi: Tensor) -> Tensor:
        """The entries that are the weights' own."""
        return torch.cat([psi[: self._variances], psi[self._variances + len(FLOORS) :]])

    def floors(self, psi: Tensor) -> Tensor:
        """Variance of each floor, and of what the factor leaves out."""
        own = psi[self._variances : self._variances + len(FLOORS)].exp()
        if self.factor.rest is None:
            return own
        a = self.factor.prior.coefficients(self.of_weights(psi)).detach()
        return torch.cat([own, (a @ self.factor.shares.to(a))[None]])

    def coefficients(self, psi: Tensor) -> Tensor:
        own = psi[self._variances : self._variances + len(FLOORS)].exp()
        return torch.cat([self.factor.prior.coefficients(self.of_weights(psi)), own])

    def components(self, features: Tensor) -> Iterator[Tensor]:
        rank, floors = self.factor.rank, self.floor_slices
        rows = features.double()
        tail = [rows[:, s] @ rows[:, s].T for s in floors[len(FLOORS) :]]
        for C, share in zip(self.factor.components, self.factor.shares, strict=True):
            yield sum((share * t for t in tail), rows[:, :rank] @ C @ rows[:, :rank].T)
        for s in floors[: len(FLOORS)]:
            yield rows[:, s] @ rows[:, s].T

    def mixing(self, psi: Tensor) -> Tensor:
        """``C(psi)``, (r, r), float64."""
        a = self.factor.prior.coefficients(self.of_weights(psi)).detach()
        return torch.tensordot(a.to(self.factor.components), self.factor.components, 1)

    def covariance(self, vectors: Tensor, psi: Tensor) -> Tensor:
        return self._apply(vectors, self.mixing(psi), self.floors(psi))

    def root(self, vectors: Tensor, psi: Tensor) -> Tensor:
        return self._apply(vectors, self._root(psi).T, self.floors(psi).sqrt())

    def root_transpose(self, vectors: Tensor, psi: Tensor) -> Tensor:
        return self._apply(vectors, self._root(psi), self.floors(psi).sqrt())

    def precision(self, vectors: Tensor, psi: Tensor) -> Tensor:
        return self._apply(vectors, torch.cholesky_inverse(self._root(psi)), 1 / self.floors(psi))

    def derivatives(self, vectors: Tensor, psi: Tensor) -> Iterator[Tensor]:
        """``dSigma_i v`` for each hyperparameter and each row of ``vectors`` (k, r + 2 d)."""
        slopes = torch.autograd.functional.jacobian(self.coefficients, psi)
        assert isinstance(slopes, Tensor)
        split = len(self.factor.components)
        for slope in slopes.T:
            matrix = torch.tensordot(slope[:split].to(self.factor.components), self.factor.components, 1)
            floors = slope[split:]
            if self.factor.rest is not None:
                floors = torch.cat([floors, (slope[:split] @ self.factor.shares.to(slope))[None]])
            yield self._apply(vectors, matrix, floors)

    def variation(self, image: Tensor, strength: float) -> VariationPrior:
        """The TV hyperprior of the weights' variances, of ``strength`` per unit of total variation over that of ``image``."""
        index = torch.arange(image.numel(), device=image.device).reshape(image.shape)
        # The last axis first: the order decides the last digits of a sum.
        axes = [(axis, image.shape[axis] - 1) for axis in reversed(range(image.ndim))]
        first, second = (torch.cat([index.narrow(axis, start, n).reshape(-1) for axis, n in axes]) for start in (0, 1))
        flat = image.reshape(-1).double()
        means = (flat[first] - flat[second]).cpu()
        rows = torch.stack([_of_differences(self.factor.basis, C, first, second) for C in self.factor.components])
        if self.factor.rest is not None:
            rows = rows + self.factor.shares[:, None] * (self.factor.rest[first] + self.factor.rest[second])
        rows = rows.cpu()
        return VariationPrior(self.factor.prior, rows, means, self._owners, strength / float(means.abs().sum()))

    @property
    def _variances(self) -> int:
        return len(self.factor.prior.members)

    @cached_property
    def _owners(self) -> list[int]:
        """Which variance each component belongs to: the one entry of psi whose change scales it."""
        prior = self.factor.prior
        slopes = torch.autograd.functional.jacobian(prior.coefficients, prior.start())
        assert isinstance(slopes, Tensor)
        return slopes[:, prior.is_variance].argmax(1).tolist()

    def _root(self, psi: Tensor) -> Tensor:
        return stable_cholesky(self.mixing(psi))

    def _apply(self, vectors: Tensor, matrix: Tensor, floors: Tensor) -> Tensor:
        """The first r entries times a matrix from the right, each floor's pixels times its number."""
        rank = self.factor.rank
        out = torch.empty_like(vectors)
        out[:, :rank] = (vectors[:, :rank].double() @ matrix).to(out)
        for s, value in zip(self.floor_slices, floors.tolist(), strict=True):
            torch.mul(vectors[:, s], value, out=out[:, s])
        return out


def _of_differences(basis: Tensor | None, C: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Variances of differences of pixels under one component."""
    if basis is None:
        return C.diagonal()[first] + C.diagonal()[second] - 2 * C[first, second]
    out = []
    for a, b in zip(first.split(8192), second.split(8192), strict=True):
        rows = (basis[a] - basis[b]).double()
        out.append(((rows @ C) * rows).sum(1))
    return torch.cat(out)
