"""What an image is before any ray is seen, as a prior of the general engine: the network's share, and two floors.

The image is ``F c + u_1 + u_2``: coefficients ``c ~ N(0, C(psi))`` of the network's factor, and independent pixels of variances
``floor_f profile_f`` for what no weights explain: a white error, and edges that lie a little beside where the image has them,
whose error is the displacement times the image's slope. Beside the image stand the scan's systematic errors, ``eta_k`` of each
block of `ctuq.systematics`: the rays see them, the image does not hold them. Their entries follow those of c.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ctuq.laplace.priors.variation import VariationPrior
from ctuq.linops.gaussian import stable_cholesky
from ctuq.uncertainty.model.factor import NetworkFactor

FLOORS = ("floor", "displacement")


@dataclass(frozen=True)
class ErrorPrior:
    """Of one block of systematic errors: how many there are, and the variance of each.

    Parameters
    ----------
    name : str
    size : int
    variance : float, optional
        None where the evidence learns it.
    """

    name: str
    size: int
    variance: float | None


@dataclass(frozen=True, eq=False)
class ImagePrior:
    """A prior over the latent vector ``[c, eta, u_1, u_2]``, whose log hyperparameters are the weights', the floors' and eta's.

    Log variances come first (of the weights, the floors, the blocks of eta that are learned), then the weights' other
    hyperparameters. Blocks that are learned stand before the others.

    Parameters
    ----------
    factor : NetworkFactor
    first : Tensor, float64
        Where the search for the hyperparameters starts, up to one factor of all variances.
    pixels : int
    errors : tuple of ErrorPrior
        Of the systematic errors, in the order of their entries.
    """

    factor: NetworkFactor
    first: Tensor
    pixels: int
    errors: tuple[ErrorPrior, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        weights, n = self.factor.prior.names, self._variances
        return (*weights[:n], *FLOORS, *(e.name for e in self._learned), *weights[n:])

    @property
    def members(self) -> tuple[tuple[slice, ...], ...]:
        floors, tail = self.floor_slices[: len(FLOORS)], self.floor_slices[len(FLOORS) :]
        learned = tuple((s,) for s in self.error_slices[: len(self._learned)])
        return (((slice(0, self.factor.rank), *tail),) * self._variances) + tuple((s,) for s in floors) + learned

    @property
    def is_variance(self) -> Tensor:
        return torch.arange(len(self.names)) < self._tail

    @property
    def rank(self) -> int:
        """Entries of c and eta."""
        return self.factor.rank + sum(e.size for e in self.errors)

    @property
    def error_slices(self) -> tuple[slice, ...]:
        """Where each block of eta stands in a latent vector."""
        slices, start = [], self.factor.rank
        for e in self.errors:
            slices.append(slice(start, start + e.size))
            start += e.size
        return tuple(slices)

    @property
    def floor_slices(self) -> tuple[slice, ...]:
        """Where the pixels of each floor stand in a latent vector, and after them those of what the factor leaves out."""
        count = len(FLOORS) + (self.factor.rest is not None)
        starts = [self.rank + f * self.pixels for f in range(count)]
        return tuple(slice(s, s + self.pixels) for s in starts)

    def start(self) -> Tensor:
        return self.first.clone()

    def with_errors(self, errors: tuple[ErrorPrior, ...], sizes: Sequence[float]) -> "ImagePrior":
        """With these systematic errors in place of its own; ``sizes`` are variances of the learned ones to start from."""
        own = self._variances + len(FLOORS)
        first = torch.cat([self.first[:own], torch.tensor(sizes, dtype=self.first.dtype).log(), self.first[self._tail :]])
        return replace(self, errors=errors, first=first)

    def of_weights(self, psi: Tensor) -> Tensor:
        """The entries that are the weights' own."""
        return torch.cat([psi[: self._variances], psi[self._tail :]])

    def without_errors(self, psi: Tensor) -> Tensor:
        """The entries of a prior without systematic errors."""
        return torch.cat([psi[: self._variances + len(FLOORS)], psi[self._tail :]])

    def floors(self, psi: Tensor) -> Tensor:
        """Variance of each floor, and of what the factor leaves out."""
        own = psi[self._variances : self._variances + len(FLOORS)].exp()
        if self.factor.rest is None:
            return own
        a = self.factor.prior.coefficients(self.of_weights(psi)).detach()
        return torch.cat([own, (a @ self.factor.shares.to(a))[None]])

    def error_variances(self, psi: Tensor) -> Tensor:
        """Of an entry of each block of eta."""
        learned = psi[self._variances + len(FLOORS) : self._tail].exp()
        return torch.cat([learned, psi.new_tensor([e.variance for e in self.errors[len(learned) :]])])

    def coefficients(self, psi: Tensor) -> Tensor:
        own = psi[self._variances : self._variances + len(FLOORS)].exp()
        return torch.cat([self.factor.prior.coefficients(self.of_weights(psi)), own, self.error_variances(psi)])

    def components(self, features: Tensor) -> Iterator[Tensor]:
        """As of `Prior`: the factor's components, then the floors, then what the scanner does wrong."""
        rank, floors = self.factor.rank, self.floor_slices
        rows = features.double()
        tail = [rows[:, s] @ rows[:, s].T for s in floors[len(FLOORS) :]]
        for C, share in zip(self.factor.components, self.factor.shares, strict=True):
            yield sum((share * t for t in tail), rows[:, :rank] @ C @ rows[:, :rank].T)
        for s in (*floors[: len(FLOORS)], *self.error_slices):
            yield rows[:, s] @ rows[:, s].T

    def mixing(self, psi: Tensor) -> Tensor:
        """``C(psi)`` of c, and beside it the variances of eta, (rank, rank), float64."""
        return self._mixed(self.factor.prior.coefficients(self.of_weights(psi)).detach(), self.error_variances(psi))

    def _mixed(self, a: Tensor, variances: Tensor) -> Tensor:
        C = torch.tensordot(a.to(self.factor.components), self.factor.components, 1)
        if not self.errors:
            return C
        sizes = torch.tensor([e.size for e in self.errors])
        return torch.block_diag(C, torch.diag(variances.detach().repeat_interleave(sizes)).to(C))

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
            matrix = self._mixed(slope[:split], slope[split + len(FLOORS) :])
            floors = slope[split : split + len(FLOORS)]
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
            rows = rows + self.factor.shares[:, None] * self.factor.rest.of_differences(first, second)
        rows = rows.cpu()
        return VariationPrior(self.factor.prior, rows, means, self._owners, strength / float(means.abs().sum()))

    @property
    def _variances(self) -> int:
        return len(self.factor.prior.members)

    @property
    def _learned(self) -> Sequence[ErrorPrior]:
        return tuple(e for e in self.errors if e.variance is None)

    @property
    def _tail(self) -> int:
        """Where the weights' other hyperparameters begin."""
        return self._variances + len(FLOORS) + len(self._learned)

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
        """The first entries times a matrix from the right, each floor's pixels times its number."""
        rank = self.rank
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
