"""Which solver a Gaussian process takes, and why."""

import math

import torch

from ctuq.errors import InputError
from ctuq.laplace.gp.descent import BlockProjections, DualDescent, PrimalDescent
from ctuq.laplace.gp.exact import ConjugateGradients, Direct, Inverse, Method
from ctuq.laplace.gp.operator import KernelOperator
from ctuq.linops.memory import available_memory
from ctuq.linops.precondition import Nystrom

METHODS: dict[str, Method] = {
    method.name: method for method in (Direct(), ConjugateGradients(), BlockProjections(), PrimalDescent(), DualDescent())
}
_SMALL, _LARGE = 2000, 25_000
_COLUMNS = 64


def choose(K: KernelOperator, solver: str | Method, *, rng: torch.Generator) -> tuple[str, Inverse, str]:
    """Name and prepared inverse of a solver, and why it is this one.

    ``"auto"`` takes Cholesky up to 2,000 points. Above that it sketches K, which tells how many steps conjugate gradients will
    need, and takes whichever costs less for 64 right-hand sides; Cholesky only up to 25,000 points and where it fits.

    Raises
    ------
    InputError
        For an unknown name.
    """
    if isinstance(solver, str) and solver != "auto":
        if solver not in METHODS:
            raise InputError(f"There is no solver {solver!r}; take auto, {', '.join(METHODS)}.")
        solver = METHODS[solver]
    if not isinstance(solver, str):
        return solver.name, solver.prepare(K, rng=rng), "asked for"
    n, left = len(K.x), available_memory(K.x.device)
    fits = n <= _LARGE and (left is None or 10 * n**2 < left)
    if n <= _SMALL and fits:
        return "cholesky", Direct().prepare(K, rng=rng), f"{n} points factor at once"
    method = ConjugateGradients()
    sketch = method.sketch(K, rng=rng)
    steps = expected_steps(sketch, K.noise)
    if fits and steps * _COLUMNS > n / 3:
        return "cholesky", Direct().prepare(K, rng=rng), f"{n} points factor sooner than CG takes about {steps} steps"
    return "cg", method.with_sketch(K, sketch), f"about {steps} steps for {n} points"


def expected_steps(sketch: Nystrom, noise: float) -> int:
    """Steps of preconditioned conjugate gradients to 1e-2, from the smallest eigenvalue in the sketch over the noise."""
    rest = float(sketch.values[-1]) if len(sketch.values) else 0.0
    return math.ceil(0.5 * math.sqrt(1 + rest / noise) * math.log(200))
