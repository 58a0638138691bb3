"""Ways to solve ``(K + sigma2 I) a = b`` at the data of a Gaussian process to a tolerance: Cholesky, conjugate gradients."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ctuq.errors import CtuqError
from ctuq.gp.operator import KernelOperator
from ctuq.linops.precondition import Nystrom, nystrom
from ctuq.linops.solve import CG, Solution, relative

_REFINEMENTS, _LEAST, _CLOSE = 8, 1e-6, 1e-3
_SMALL = 4000
_EXCESS, _TIGHTER = 2e-3, 4


class Inverse(ABC):
    """``H^-1`` with ``H = K + sigma2 I``, prepared: factor or preconditioner are at hand.

    Variances come from predictors: with any d, ``own - c d^T - d c^T + d H d^T`` is the covariance of what the predictor
    ``d^T y`` leaves, larger than the exact one by ``r H^-1 r^T`` with ``r = c - d H``. It is symmetric and positive, and an
    error of the solve enters by its square; in ``own - c d^T`` it would enter as it is, beside variances that may be a
    millionth of the prior's.
    """

    K: KernelOperator

    @abstractmethod
    def __call__(self, b: Tensor, *, shift: Tensor | None = None) -> Solution:
        """Solve for targets ``b`` plus ``shift``, both (k, n) in float64.

        The shift is noise, from which primal descent makes less of its own. The residual is relative to ``|b + shift|``.
        """

    def variance(self, own: Tensor, cross: Tensor) -> Tensor:
        """Posterior variances of k values from their prior variances (k,) and their covariances with the data (k, n)."""
        gain, left = self._gain(own, cross)
        return own - (gain * (cross + left)).sum(1)

    def covariance(self, own: Tensor, cross: Tensor) -> Tensor:
        """Posterior covariance (k, k) of k values from that of the prior and their covariances with the data (k, n)."""
        gain, left = self._gain(own.diagonal(), cross)
        found = own - gain @ cross.T - left @ gain.T
        return (found + found.T) / 2

    def _gain(self, own: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
        """Rows d close to ``H^-1 c``, and ``c - H d`` in float64."""
        gain = self(cross).value
        return gain, cross - self.K.exact(gain)


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
        b, target = b if shift is None else b + shift, goal(self.K, _CLOSE)
        x, r, steps = _refine(self.K, b, torch.full_like(b[:, 0], target), self._attempt)
        return _judged("Cholesky", (b, x, r), target, steps)

    def _attempt(self, b: Tensor, rtol: Tensor) -> tuple[Tensor, int]:
        half = torch.linalg.solve_triangular(self.factor, b.T.to(self.factor), upper=False)
        return torch.linalg.solve_triangular(self.factor.mT, half, upper=True).T.to(b), 1

    def variance(self, own: Tensor, cross: Tensor) -> Tensor:
        half = torch.linalg.solve_triangular(self.factor, cross.T.to(self.factor), upper=False)
        return own - half.norm(dim=0, dtype=torch.float64).square()


@dataclass(frozen=True)
class ConjugateGradients:
    """Conjugate gradients with a randomised Nystrom preconditioner, refined in float64.

    Products run in the operator's type; the residual is computed in float64 and what is left is solved for again, until its
    root mean square is ``tolerance`` noise standard deviations. Variances have a tolerance each: they are solved for until what
    the residual adds to them is below a 500th.

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
        b = b if shift is None else b + shift
        x, r, steps = _refine(self.K, b, torch.full_like(b[:, 0], self.target), self._attempt)
        return _judged("Conjugate gradients", (b, x, r), self.target, steps)

    def _gain(self, own: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
        """Each row to the residual that its own variance allows: its excess ``r H^-1 r^T`` is known by the preconditioner.

        The sketch is below K, so that the preconditioner's value bounds it from above.
        """
        gain, left = torch.zeros_like(cross), cross
        goals, excess = torch.full_like(own, self.target), torch.full_like(own, torch.inf)
        for _ in range(_TIGHTER):
            change, left, _ = _refine(self.K, left, goals, self._attempt)
            gain = gain + change
            excess = self._excess(left)
            allowed = _EXCESS * (own - (gain * (cross + left)).sum(1) - excess).clamp(min=0)
            if bool((excess <= allowed).all()):
                break
            # Half of what would do, since the variance itself falls; beside rounding no more than a hundredth at a time.
            falls = (allowed / excess.clamp(min=torch.finfo(excess.dtype).tiny)).sqrt().clamp(0.01, 2.0) / 2
            goals = left.norm(dim=1) * falls
        _warn_of_excess(excess, own - (gain * (cross + left)).sum(1))
        return gain, left

    def _excess(self, left: Tensor) -> Tensor:
        assert self.solver.preconditioner is not None
        return (left * self.solver.preconditioner(left)).sum(1)

    def _attempt(self, b: Tensor, rtol: Tensor) -> tuple[Tensor, int]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the float64 residual decides
            found = self.solver.each(self.K, b, rtol)
        return found.value, found.steps


def _warn_of_excess(excess: Tensor, variance: Tensor) -> None:
    share = excess / torch.maximum(variance, excess).clamp(min=torch.finfo(variance.dtype).tiny)
    worst = float(share.max()) if len(share) else 0.0
    if worst > 10 * _EXCESS:
        warnings.warn(
            f"Up to {100 * worst:.0f} % of a variance may be what conjugate gradients left unsolved: "
            "use float64 products, a higher rank, more steps, or Cholesky.",
            stacklevel=5,
        )


def goal(K: KernelOperator, tolerance: float) -> float:
    """Norm of a residual whose root mean square is ``tolerance`` noise standard deviations."""
    return tolerance * math.sqrt(K.noise * len(K.x))


def warn_of_miss(name: str, residual: Tensor, goal: float, advice: str) -> None:
    """Say by how much a residual (k,) in norm misses its goal, if it does."""
    worst = float(residual.max()) if len(residual) else 0.0
    if not worst <= goal:  # of NaN too
        warnings.warn(f"{name} left a residual of {worst / goal:.1f} times the tolerance: {advice}.", stacklevel=4)


def _judged(name: str, solved: tuple[Tensor, Tensor, Tensor], target: float, steps: int) -> Solution:
    """The solution x of right-hand sides b with residuals r, all (k, n), and a warning if it misses the target."""
    b, x, r = solved
    size = r.norm(dim=1)
    warn_of_miss(name, size, target, "use float64 products, a higher rank, more steps, or Cholesky")
    return Solution(x, relative(r, b), steps, bool((size <= target).all()))


def _refine(
    K: KernelOperator, b: Tensor, target: Tensor, attempt: Callable[[Tensor, Tensor], tuple[Tensor, int]]
) -> tuple[Tensor, Tensor, int]:
    """Iterative refinement: solve for the float64 residual until its norm is below the target or stops falling by half.

    ``attempt(b, rtol)`` gives a solution to about a relative residual of each row, and its steps. Returned are the solution,
    its residual and the steps.
    """
    x, r, steps = torch.zeros_like(b), b.clone(), 0
    size = r.norm(dim=1)
    for _ in range(_REFINEMENTS):
        left = (size > target).nonzero()[:, 0]
        if not len(left):
            break
        value, taken = attempt(r[left], (target[left] / 2 / size[left]).clamp(min=_LEAST))
        steps += taken
        trial = x[left] + value
        rest = b[left] - K.exact(trial)
        better = rest.norm(dim=1) < size[left]
        stuck = bool((rest.norm(dim=1) > size[left] / 2).all())
        gained = left[better]
        x[gained], r[gained], size[gained] = trial[better], rest[better], rest[better].norm(dim=1)
        if stuck:
            break
    return x, r, steps
