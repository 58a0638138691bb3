"""Ways to solve ``(K + sigma2 I) a = b`` at the data of a Gaussian process that see a mini-batch of rows at a time."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.gp.exact import Inverse, goal, warn_of_miss
from ctuq.gp.features import random_features
from ctuq.gp.operator import KernelOperator
from ctuq.linops.block_descent import BlockDescent
from ctuq.linops.solve import Solution, relative
from ctuq.linops.stochastic import sdd, sgd

_ADVICE = "allow more steps, or use CG or Cholesky"


@dataclass(frozen=True)
class DualDescent:
    """Stochastic dual descent (Lin et al. 2024): random coordinates of the dual gradient, momentum, averaged iterates.

    Parameters
    ----------
    steps, batch : int
        Mini-batches in all, and rows in each.
    tolerance : float
        Root mean square residual to expect, in noise standard deviations; a miss is a warning with the number.
    """

    steps: int = 10_000
    batch: int = 512
    tolerance: float = 0.1

    name = "sdd"

    def prepare(self, K: KernelOperator, *, rng: torch.Generator) -> Inverse:
        """Nothing to prepare: the step comes from a few mini-batches of each run."""

        def solve(b: Tensor, shift: Tensor) -> Tensor:
            momentum = momentum_for(self.steps)
            return sdd(K.rows, b + shift, batch=self.batch, steps=self.steps, momentum=momentum, rng=rng).value

        return _Judged("Stochastic dual descent", K, goal(K, self.tolerance), self.steps, solve)


@dataclass(frozen=True)
class PrimalDescent:
    """Stochastic gradients of the primal objective (Lin et al. 2023), with the noise of samples moved into the regulariser.

    ``|b - K a|^2 / 2 + (sigma2 / 2) |a|_K^2 - shift^T K a`` has the gradient ``K (K a - b) + K (sigma2 a - shift)``;
    mini-batches of rows estimate the first term, fresh random features the second. Its condition number is the square of the
    dual's, and the error stays longest in directions that the prior hardly covers: predictions far from the data and right at
    them come first.

    Parameters
    ----------
    steps, batch : int
        Mini-batches in all, and rows in each.
    features : int
        Of the regulariser, drawn anew at each step.
    tolerance : float
        Root mean square residual to expect, in noise standard deviations; a miss is a warning with the number.
    """

    steps: int = 10_000
    batch: int = 512
    features: int = 100
    tolerance: float = 0.1

    name = "sgd"

    def prepare(self, K: KernelOperator, *, rng: torch.Generator) -> Inverse:
        """Nothing to prepare: the step comes from a few mini-batches of each run."""

        def solve(b: Tensor, shift: Tensor) -> Tensor:
            gradient, start = primal_gradient(K, b, shift, features=self.features, rng=rng), torch.zeros_like(b)
            momentum = momentum_for(self.steps)
            return sgd(gradient, start, n=b.shape[1], batch=self.batch, steps=self.steps, momentum=momentum, rng=rng)

        return _Judged("Stochastic gradients", K, goal(K, self.tolerance), self.steps, solve)


@dataclass(frozen=True)
class BlockProjections:
    """Exact minimisation over one random block of coordinates after another (alternating projections).

    Parameters
    ----------
    batch : int
        Coordinates in a block.
    tolerance : float
        Root mean square residual of a datum, in noise standard deviations.
    max_passes : int
        Over all data.
    """

    batch: int = 1000
    tolerance: float = 0.03
    max_passes: int = 200

    name = "blocks"

    def prepare(self, K: KernelOperator, *, rng: torch.Generator) -> Inverse:
        """Nothing to prepare: blocks are factored as they come."""

        def solve(b: Tensor, shift: Tensor) -> Tensor:
            rtol = 0.9 * goal(K, self.tolerance) / float((b + shift).norm(dim=1).max())
            return BlockDescent(rng, self.batch, rtol, self.max_passes)(K, b + shift).value

        return _Judged("Block descent", K, goal(K, self.tolerance), self.max_passes, solve)


def momentum_for(steps: int) -> float:
    """Momentum that forgets within a tenth of the steps, from 0.9 to 0.998.

    Directions of small eigenvalues converge in proportion to ``step / (1 - momentum)``. Batches of hundreds of rows are so
    little noise that the step stays: the usual 0.9 gives away a factor of up to 50.
    """
    return min(0.998, max(0.9, 1 - 10 / steps))


def primal_gradient(
    K: KernelOperator, b: Tensor, shift: Tensor, *, features: int, rng: torch.Generator
) -> Callable[[Tensor, Tensor], Tensor]:
    """Unbiased ``gradient(a, index)`` of the primal objective, (k, n), from rows ``index`` and fresh random features."""
    n = len(K.x)

    def gradient(a: Tensor, index: Tensor) -> Tensor:
        rows = K.columns(index)
        misfit = a.to(rows) @ rows.T - b[:, index].to(rows)
        Phi = random_features(K.kernel, K.x.shape[1], features, rng=rng)(K.x).to(rows)
        rest = (K.noise * a - shift).to(rows)
        return ((n / len(index)) * (misfit @ rows) + (rest @ Phi) @ Phi.T).to(a)

    return gradient


@dataclass(frozen=True, eq=False)
class _Judged(Inverse):
    """A solver whose result is judged by its residual in float64."""

    name: str
    K: KernelOperator
    target: float
    steps: int
    solve: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, b: Tensor, *, shift: Tensor | None = None) -> Solution:
        shift = torch.zeros_like(b) if shift is None else shift
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the float64 residual decides
            x = self.solve(b, shift)
        r = b + shift - self.K.exact(x)
        warn_of_miss(self.name, r.norm(dim=1), self.target, _ADVICE)
        return Solution(x, relative(r, b + shift), self.steps, bool((r.norm(dim=1) <= self.target).all()))
