"""Ways to solve ``(K + sigma2 I) a = b`` at the data of a Gaussian process to a tolerance: Cholesky, conjugate gradients."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ctuq.errors import CtuqError
from ctuq.gp.operator import KernelOperator
from ctuq.linops.precondition import Nystrom, nystrom
from ctuq.linops.solve import CG, Solution, relative

_REFINEMENTS, _LEAST, _CLOSE = 8, 1e-6, 1e-3
_SMALL = 4000


class Inverse(ABC):
    """``(K + sigma2 I)^-1``, prepared: factor or preconditioner are at hand."""

    @abstractmethod
    def __call__(self, b: Tensor, *, shift: Tensor | None = None) -> Solution:
        """Solve for targets ``b`` plus ``shift``, both (k, n) in float64.

        The shift is noise, from which primal descent makes less of its own. The residual is relative to ``|b + shift|``.
        """

    def quadratic(self, b: Tensor) -> Tensor:
        """``b^T (K + sigma2 I)^-1 b`` for each row of ``b`` (k, n), shape (k,)."""
        return (self(b).value * b).sum(1)


class Method(Protocol):
    """A solver with its settings."""

    @property
    def name(self) -> str:
        """As in ``solver=``."""
        ...

    def prepare(self, K: KernelOperator, *, rng: torch.Generator) -> Inverse:
        """What all right-hand sides share."""
        ...


@dataclass(frozen=True)
class Direct:
    """Dense Cholesky factor, in place: n^2 numbers and n^3 / 3 operations, once.

    From 4,000 points on the factor has the operator's type, which is half the time where that is float32. Solutions are refined
    by their float64 residuals; quadratic forms have the factor's rounding.
    """

    name = "cholesky"

    def prepare(self, K: KernelOperator, *, rng: torch.Generator) -> Inverse:
        """Factor the matrix.

        Raises
        ------
        ResourceError
            If it does not fit.
        CtuqError
            If it is not positive definite to rounding.
        """
        matrix = K.dense(K.dtype if len(K.x) > _SMALL else torch.float64)
        fault = torch.empty((), dtype=torch.int32, device=matrix.device)
        torch.linalg.cholesky_ex(matrix.mT, out=(matrix.mT, fault))
        if fault:
            raise CtuqError(
                f"The covariance of {len(matrix)} points is not positive definite (pivot {int(fault)}) with noise variance "
                f"{K.noise:.1e}: give more noise."
            )

        return _Factor(K, matrix.mT)


@dataclass(frozen=True, eq=False)
class _Factor(Inverse):
    K: KernelOperator
    factor: Tensor

    def __call__(self, b: Tensor, *, shift: Tensor | None = None) -> Solution:
        return _refine("Cholesky", self.K, b if shift is None else b + shift, goal(self.K, _CLOSE), self._attempt)

    def _attempt(self, b: Tensor, rtol: float) -> tuple[Tensor, int]:
        half = torch.linalg.solve_triangular(self.factor, b.T.to(self.factor), upper=False)
        return torch.linalg.solve_triangular(self.factor.mT, half, upper=True).T.to(b), 1

    def quadratic(self, b: Tensor) -> Tensor:
        half = torch.linalg.solve_triangular(self.factor, b.T.to(self.factor), upper=False)
        return half.norm(dim=0, dtype=torch.float64).square()


@dataclass(frozen=True)
class ConjugateGradients:
    """Conjugate gradients with a randomised Nystrom preconditioner, refined in float64.

    Products run in the operator's type; the residual is computed in float64 and what is left is solved for again, until its
    root mean square is ``tolerance`` noise standard deviations.

    Parameters
    ----------
    tolerance : float
        Root mean square residual of a datum, in units of the noise's standard deviation.
    rank : int
        Of the preconditioner, at most.
    max_steps : int
        Of each round of conjugate gradients.
    """

    tolerance: float = 0.03
    rank: int = 512
    max_steps: int = 1000

    name = "cg"

    def prepare(self, K: KernelOperator, *, rng: torch.Generator) -> Inverse:
        """Build the preconditioner."""
        return self.with_sketch(K, self.sketch(K, rng=rng))

    def sketch(self, K: KernelOperator, *, rng: torch.Generator) -> Nystrom:
        """Low-rank approximation of K without its noise."""
        return nystrom(K.with_noise(0.0), min(self.rank, len(K.x)), rng=rng, noise=K.noise)

    def with_sketch(self, K: KernelOperator, sketch: Nystrom) -> Inverse:
        """The solver with a low-rank approximation of K that is there already."""
        return _Preconditioned(K, goal(K, self.tolerance), CG(self.tolerance, self.max_steps, sketch.with_noise(K.noise)))


@dataclass(frozen=True, eq=False)
class _Preconditioned(Inverse):
    K: KernelOperator
    target: float
    solver: CG

    def __call__(self, b: Tensor, *, shift: Tensor | None = None) -> Solution:
        return _refine("Conjugate gradients", self.K, b if shift is None else b + shift, self.target, self._attempt)

    def _attempt(self, b: Tensor, rtol: float) -> tuple[Tensor, int]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the float64 residual decides
            found = replace(self.solver, rtol=rtol)(self.K, b)
        return found.value, found.steps


def goal(K: KernelOperator, tolerance: float) -> float:
    """Norm of a residual whose root mean square is ``tolerance`` noise standard deviations."""
    return tolerance * math.sqrt(K.noise * len(K.x))


def warn_of_miss(name: str, residual: Tensor, goal: float, advice: str) -> None:
    """Say by how much a residual (k,) in norm misses its goal, if it does."""
    worst = float(residual.max()) if len(residual) else 0.0
    if worst > goal:
        warnings.warn(f"{name} left a residual of {worst / goal:.1f} times the tolerance: {advice}.", stacklevel=4)


def _refine(
    name: str, K: KernelOperator, b: Tensor, target: float, attempt: Callable[[Tensor, float], tuple[Tensor, int]]
) -> Solution:
    """Iterative refinement: solve for the float64 residual until its norm is below the target or stops falling by half.

    ``attempt(b, rtol)`` gives a solution to about a relative residual, and its steps.
    """
    x, r, steps = torch.zeros_like(b), b.clone(), 0
    size = r.norm(dim=1)
    for _ in range(_REFINEMENTS):
        left = (size > target).nonzero()[:, 0]
        if not len(left):
            break
        value, taken = attempt(r[left], max(target / 2 / float(size[left].max()), _LEAST))
        steps += taken
        trial = x[left] + value
        rest = b[left] - K.exact(trial)
        better = rest.norm(dim=1) < size[left]
        stuck = bool((rest.norm(dim=1) > size[left] / 2).all())
        gained = left[better]
        x[gained], r[gained], size[gained] = trial[better], rest[better], rest[better].norm(dim=1)
        if stuck:
            break
    warn_of_miss(name, size, target, "use float64 products, a higher rank, more steps, or Cholesky")
    return Solution(x, relative(r, b), steps, bool((size <= target).all()))
