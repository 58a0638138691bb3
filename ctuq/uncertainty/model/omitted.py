"""Some rays of a scan given all others, by a Gaussian prior over pixels: from the posterior given all, or given the others."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.uncertainty.model.gaussian import ByConjugateGradients, GaussianPosterior, ends_of
from ctuq.uncertainty.model.left_out import GivenOthers

_VALUES = 2**25
"""Of all images of rays that are held at once: 256 MiB."""


@dataclass(frozen=True)
class RaysAsked:
    """How many rays are predicted from all others.

    Parameters
    ----------
    held_out, left_out : int
        Of held-out views, and of views left out one by one.
    each : int, optional
        Of a view that is left out; by default all.
    """

    held_out: int
    left_out: int
    each: int | None = None


def asked_of(posterior: GaussianPosterior) -> RaysAsked:
    """All rays of held-out views, or where each takes a solve by conjugate gradients some, on a lattice."""
    if isinstance(posterior, ByConjugateGradients):
        # Twice as many images, of each ray and of what it sees of edges, are held three times.
        return RaysAsked(held_out=min(512, max(128, _VALUES // posterior.size)), left_out=256, each=128)
    return RaysAsked(held_out=len(posterior.given.target), left_out=512)


def omit(posterior: GaussianPosterior, rows: Tensor) -> "OmittedRays | PartedRays":
    """These rays given all others, the way that the posterior's route allows."""
    return PartedRays(posterior, rows) if isinstance(posterior, ByConjugateGradients) else OmittedRays(posterior, rows)


class OmittedRays(GivenOthers):
    """Rays given all others, by a Gaussian prior over pixels: from its posterior P given all.

    With ``b = M / sigma``, ``(K^-1)_hh = I - b_h P b_h^T``, and P given the others is ``P + P b_h^T T b_h P``.

    Parameters
    ----------
    posterior : GaussianPosterior
        Given all rays.
    rows : Tensor of int, shape (k,)
        Those that are left out.
    """

    def __init__(self, posterior: GaussianPosterior, rows: Tensor):
        self._posterior, self._rows = posterior, rows
        self._matrix, self._root = posterior.given.matrix.rows(rows), posterior.sigma2**0.5

    def _made(self) -> Tensor:
        return torch.linalg.inv(self._posterior.precision_of_rays(self._rows))

    @property
    def _weighted(self) -> Tensor:
        off = self._posterior.given.target[self._rows] - self._matrix(self._posterior.mean[None])[0]
        return off / self._root

    def images_of(self, q: Tensor) -> Tensor:
        pulled = self._matrix.transposed(q @ self._covariance) / self._root
        return self._posterior.times(pulled).reshape(-1, *self._posterior.shape)

    def systematic(self) -> None:
        """Not in this model."""

    def own(self) -> Tensor:
        """None in this model."""
        return self._covariance.new_zeros(len(self._rows), 0)

    def apart(self, share: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances of some of the rays given the others, and of what they see of a share of each pixel, without noise.

        With M the share, ``h P h^T``, ``h M P h^T`` and ``h M P M h^T``, in units of the noise and P given the others: as many
        solves as left-out rays.

        Parameters
        ----------
        share : Tensor, float64, shape (y, x)
        index : Tensor of int, shape (k,)
        """
        T, count, weights = self._covariance, len(self._rows), share.flatten()
        U, W = torch.empty_like(T), torch.empty_like(T)
        for start, stop in ends_of(count, self._posterior.size):
            pushed = self._posterior.times(weights * self._matrix.dense(start, stop)) / self._root**2
            U[start:stop], W[start:stop] = self._matrix(pushed), self._matrix(weights * pushed)
        seen, plain = U @ T, T.clone()
        plain.diagonal().sub_(1)
        both = W + seen @ U.T
        plain, seen, both = (found[index][:, index] for found in (plain, seen, (both + both.T) / 2))
        return plain, seen, both


class PartedRays:
    """Rays given all others where no factor fits: the others are solved by themselves; methods as of `Unseen`.

    `OmittedRays` takes an inverse, and so a full solve of each left-out ray; this a rough one of each ray that is asked for.

    Parameters
    ----------
    posterior : ByConjugateGradients
        Given all rays.
    rows : Tensor of int, shape (k,)
        Those that are left out.
    """

    def __init__(self, posterior: ByConjugateGradients, rows: Tensor):
        others = torch.ones(len(posterior.given.target), dtype=torch.bool, device=rows.device)
        others[rows] = False
        self._others, self._rows = posterior.of_rays(others.nonzero()[:, 0]), rows
        self._given, self._root = posterior.given, posterior.sigma2**0.5

    def joint(self, index: Tensor) -> Tensor:
        """Covariance of some of the left-out rays given the others, in units of the noise, and with it, (k, k)."""
        rays = self._rays(index)
        found = self._others.between(rays)
        found.diagonal().add_(1)
        return found

    def variances(self, index: Tensor) -> Tensor:
        """Of some of the left-out rays given the others, in units of the noise, and with it."""
        return self.joint(index).diagonal()

    def innovations(self, index: Tensor) -> Tensor:
        """What some of them measured less what is expected of them, in units of the noise."""
        expected = self._rays(index) @ self._others.mean
        return self._given.target[self._rows[index]] / self._root - expected

    def systematic(self) -> None:
        """Not in this model."""

    def own(self) -> Tensor:
        """None in this model."""
        return self._given.target.new_zeros(len(self._rows), 0)

    def correction(self, residual: Tensor, image_scale: float, noise_scale: float) -> Tensor:
        """As `GivenOthers.correction`: the mean given zeros of the others, and these residuals with their own noise."""
        ratio = noise_scale / image_scale
        return self._others.updated(self._given.matrix.rows(self._rows), residual * self._root, ratio).reshape(
            self._others.shape
        )

    def apart(self, share: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `OmittedRays.apart`."""
        rays = self._rays(index)
        both = torch.cat([rays, share.flatten() * rays])
        found, k = self._others.between(both), len(rays)
        return found[:k, :k], found[k:, :k], found[k:, k:]

    def _rays(self, index: Tensor) -> Tensor:
        """Some of the left-out rays, in units of the noise, (k, d)."""
        return self._given.matrix.rows(self._rows[index]).dense(0, len(index)) / self._root
