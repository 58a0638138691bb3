"""Functions drawn from a Gaussian process, before and after they meet data; each can be evaluated anywhere."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.gp.features import Features, random_features
from ctuq.gp.kernels import Kernel
from ctuq.gp.operator import slices

_SETS, _TILE = 8, 512


@dataclass(frozen=True, eq=False)
class PriorPaths:
    """``k`` functions ``Phi(x) w``, ``w ~ N(0, I)``.

    Parameters
    ----------
    features : tuple of Features
        Sets of features; the functions are shared out among them in order.
    weights : Tensor, float64, shape (k, L)
    """

    features: tuple[Features, ...]
    weights: Tensor

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Values at inputs (n, d), shape (k, n)."""
        return torch.cat([_evaluate(Phi, w, x) for Phi, w in self.sets()])

    def each(self, x: Tensor) -> Tensor:
        """Values of each function at inputs of its own (k, s, d), shape (k, s); differentiable."""
        parts = x.tensor_split(len(self.features))
        values = [Phi(part.flatten(0, 1)).unflatten(0, part.shape[:2]) for Phi, part in zip(self.features, parts, strict=True)]
        return torch.cat([(v @ w.to(v)[..., None])[..., 0] for v, (_, w) in zip(values, self.sets(), strict=True)])

    def at(self, kernel: Kernel) -> "PriorPaths":
        """The same draws under other hyperparameters of the same kernel."""
        return PriorPaths(tuple(replace(Phi, kernel=kernel) for Phi in self.features), self.weights)

    def sets(self) -> list[tuple[Features, Tensor]]:
        """The sets of features with the weights of their functions."""
        return list(zip(self.features, self.weights.tensor_split(len(self.features)), strict=True))


@dataclass(frozen=True, eq=False)
class SamplePaths:
    """``k`` draws of a posterior function: ``mean + f_0(x) + k(x, anchors) coefficients``.

    Parameters
    ----------
    prior : PriorPaths
    kernel : Kernel
    anchors : Tensor, shape (m, d)
        The data's inputs, or inducing points.
    coefficients : Tensor, float64, shape (k, m)
    mean : float
        Prior mean.
    residual : Tensor, float64, shape (k,)
        Relative residual of the solve behind each draw, 0 where it is exact.
    """

    prior: PriorPaths
    kernel: Kernel
    anchors: Tensor
    coefficients: Tensor
    mean: float
    residual: Tensor

    def __len__(self) -> int:
        return len(self.coefficients)

    def __call__(self, x: Tensor) -> Tensor:
        """Values at inputs (n, d), shape (k, n)."""
        return self.mean + self.prior(x) + expand(self.kernel, x, self.anchors, self.coefficients)

    def each(self, x: Tensor) -> Tensor:
        """Values of each draw at inputs of its own (k, s, d), shape (k, s); differentiable."""
        cross = self.kernel(x.flatten(0, 1), self.anchors.to(x)).unflatten(0, x.shape[:2])
        return self.mean + self.prior.each(x) + (cross @ self.coefficients.to(x)[..., None])[..., 0]

    def split(self) -> "list[SamplePaths]":
        """The draws in groups that share their prior's features."""
        groups, start = [], 0
        for Phi, w in self.prior.sets():
            part = slice(start, start + len(w))
            own = PriorPaths((Phi,), w)
            groups.append(replace(self, prior=own, coefficients=self.coefficients[part], residual=self.residual[part]))
            start += len(w)
        return groups


def prior_paths(
    kernel: Kernel, inputs: int, count: int, *, rng: torch.Generator, features: int = 2000, sets: int = _SETS
) -> PriorPaths:
    """``count`` draws of a process of mean zero on inputs of ``inputs`` columns.

    The draws share ``sets`` sets of ``features`` random features, so that the error of one set is not that of all draws.

    Parameters
    ----------
    kernel : Kernel
    inputs, count : int
    rng : torch.Generator
    features, sets : int

    Raises
    ------
    InputError
        If no draw is asked for.
    """
    if count < 1 or sets < 1:
        raise InputError(f"{count} draws from {sets} sets of features are none: ask for at least 1.")
    found = tuple(random_features(kernel, inputs, features, rng=rng) for _ in range(min(sets, count)))
    size = found[0](torch.zeros(1, inputs, dtype=torch.float64, device=kernel.variance.device)).shape[1]
    weights = torch.randn(count, size, generator=rng, device=rng.device, dtype=torch.float64)
    return PriorPaths(found, weights.to(kernel.variance.device))


@torch.no_grad()
def expand(kernel: Kernel, x: Tensor, anchors: Tensor, coefficients: Tensor) -> Tensor:
    """``coefficients k(anchors, x)`` by tiles: (k, m) to (k, n)."""
    out = x.new_zeros(len(coefficients), len(x))
    for own, c in zip(anchors.split(_TILE), coefficients.split(_TILE, dim=1), strict=True):
        for part in slices(len(x), _TILE):
            out[:, part] += c.to(x) @ kernel(own.to(x), x[part])
    return out


def _evaluate(Phi: Features, weights: Tensor, x: Tensor) -> Tensor:
    w = weights.to(x)
    return torch.cat([w @ Phi(x[part]).T for part in slices(len(x), w.shape[1])], 1)
