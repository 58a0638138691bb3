"""Posterior samples by conjugate gradients with all draws side by side, at one point of the hyperparameters after another."""

import copy
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from ctuq.errors import CtuqError
from ctuq.laplace.system.problem import Point, System
from ctuq.laplace.system.sampling import Conditioned, Draws, condition
from ctuq.linops.memory import available_memory
from ctuq.linops.operator import Space
from ctuq.linops.precondition import Nystrom, Preconditioner, nystrom
from ctuq.linops.solve import CG, Cholesky

_GAP, _TIGHTER = 0.01, 3
_RANK, _SHARE = 512, 0.2
_SMALL, _SLOW = 256, 24
_BAD = 4.0

Sampler = Callable[[System, bool, Tensor | None], Conditioned]
"""``sampler(system, with_mode, start)`` conditions frozen draws."""


class CGSampler:
    """Sampler by conjugate gradients, each product for all draws; its Nystrom preconditioner follows the hyperparameters.

    One common factor of the variances over the noise needs no new sketch; it is drawn again when steps have doubled since.
    Where the effective dimension is uncertain by more than 1 % for the solution's residuals, or a sample by more than ``each``,
    the tolerance is divided by ten, three times at most. Systems of at most 256 unknowns are solved by Cholesky.

    Parameters
    ----------
    draws : Draws
    rng : torch.Generator
        For the sketches.
    rtol : float
    max_steps : int
    rank : int
        Most directions of the preconditioner; 0 for none.
    each : float
        Largest error of any linear functional of a sample, in units of its posterior standard deviation. The effective
        dimension forgives errors where the data say nothing, and error bars are large there.
    """

    def __init__(
        self,
        draws: Draws,
        *,
        rng: torch.Generator,
        rtol: float = 1e-3,
        max_steps: int = 1000,
        rank: int = _RANK,
        each: float = torch.inf,
    ):
        self._draws, self._rng, self._rtol, self._max_steps, self._rank = draws, rng, rtol, max_steps, rank
        self._each = each
        self._sketch: tuple[Nystrom, Point] | None = None
        self._steps, self._first = 0, 0

    def with_draws(self, draws: Draws) -> "CGSampler":
        """The sampler of other draws, with the preconditioner that is there already."""
        other = copy.copy(self)
        other._draws = draws
        return other

    def state(self) -> dict[str, Any]:
        """What the next call depends on beside its arguments and the random numbers, as a tree of `ctuq.stages`."""
        if self._sketch is None:
            return {"steps": (self._steps, self._first), "sketch": None}
        found, there = self._sketch
        sketch = {"vectors": found.vectors, "values": found.values, "shape": tuple(found.space.shape)}
        return {"steps": (self._steps, self._first), "sketch": sketch | {"psi": there.psi, "sigma2": there.sigma2}}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take up a `state`."""
        self._steps, self._first = state["steps"]
        kept = state["sketch"]
        self._sketch = None
        if kept is not None:
            space = Space(kept["shape"], torch.float64, device)
            sketch = Nystrom(kept["vectors"].to(device), kept["values"].to(device), space)
            self._sketch = sketch, Point(kept["psi"], kept["sigma2"])

    def __call__(self, system: System, with_mode: bool, start: Tensor | None) -> Conditioned:
        if self._sketch is not None and self._steps > max(_SLOW, 2 * self._first):
            self._sketch = None
        renewed = self._sketch is None
        rtol = self._rtol
        found = self._solve(system, with_mode, start, rtol)
        self._steps = found.steps
        self._first = found.steps if renewed else self._first
        for _ in range(_TIGHTER):
            if self._is_dense(system) or (found.gap <= _GAP and found.error <= self._each):
                break
            rtol /= 10
            found = self._solve(system, with_mode, found.solution, rtol)
        if found.gap > _GAP:
            warnings.warn(
                f"Solves to a residual of {float(found.residual.max()):.1e} leave an error of {100 * found.gap:.1f} % in the "
                "effective dimension: use float64 features, or more steps.",
                stacklevel=2,
            )
        elif found.error > _BAD * self._each:
            warnings.warn(
                f"Solves to a residual of {float(found.residual.max()):.1e} leave errors of up to {found.error:.2g} standard "
                "deviations in samples: use float64 features, or the solver cholesky.",
                stacklevel=2,
            )
        return found

    @staticmethod
    def _is_dense(system: System) -> bool:
        return system.gram().domain.size <= _SMALL

    def _solve(self, system: System, with_mode: bool, start: Tensor | None, rtol: float) -> Conditioned:
        solver = CG(rtol, self._max_steps, self.preconditioner(system))
        with warnings.catch_warnings():
            # What a miss is worth is told by the gap; the residual itself is part of the answer.
            warnings.filterwarnings("ignore", "(CG|Cholesky) reached")
            if self._is_dense(system):
                with suppress(CtuqError):  # float32 products need not be those of a positive matrix
                    return condition(system, self._draws, Cholesky(), with_mode=with_mode, start=start)
            return condition(system, self._draws, solver, with_mode=with_mode, start=start)

    def preconditioner(self, system: System) -> Preconditioner | None:
        """For ``I + G`` of the system's smaller space; None where that is small, or memory is."""
        gram = system.gram()
        left = available_memory(system.target.device)
        rank = min(self._rank, gram.domain.size // 2)
        if left is not None:
            rank = min(rank, int(_SHARE * left / (24 * gram.domain.size)))
        if rank < 1 or gram.domain.size < _SMALL:
            return None
        if self._sketch is None:
            self._sketch = nystrom(gram, rank, rng=self._rng, noise=1.0), system.point
        sketch, there = self._sketch
        return sketch.scaled(_common_factor(system, there)).with_noise(1.0)


def _common_factor(system: System, there: Point) -> float:
    """How much the prior's variances over the noise have grown, in the geometric mean."""
    variances = system.prior.is_variance
    prior = (system.point.psi - there.psi)[variances].mean()
    noise = (system.point.sigma2.log() - there.sigma2.log()).mean()
    return float((prior - noise).exp())
