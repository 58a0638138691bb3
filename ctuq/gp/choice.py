"""Which solver a Gaussian process takes, and why."""

import math

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.gp.descent import BlockProjections, DualDescent, PrimalDescent
from ctuq.gp.exact import ConjugateGradients, Direct, Inverse, Method
from ctuq.gp.operator import KernelOperator
from ctuq.linops.basic import Symmetric
from ctuq.linops.estimate import largest_eigenvalue
from ctuq.linops.memory import available_memory
from ctuq.linops.operator import Space
from ctuq.linops.precondition import Nystrom
from ctuq.linops.solve import flat_product

_METHODS: dict[str, Method] = {
    method.name: method for method in (Direct(), ConjugateGradients(), BlockProjections(), PrimalDescent(), DualDescent())
}
_SMALL, _LARGE = 4000, 25_000
_COLUMNS, _SHARE = 64, 64
_LANCZOS = 15


def choose(K: KernelOperator, solver: str | Method, *, rng: torch.Generator) -> tuple[str, Inverse, str]:
    """Name and prepared inverse of a solver, and why it is this one.

    ``"auto"`` takes Cholesky up to 4,000 points, and conjugate gradients above 25,000 or where the factor does not fit. In
    between it counts operations: a sketch of rank n / 64, a tenth of what the factor costs, and the largest eigenvalue of what
    it leaves out tell the steps of conjugate gradients, each of 2 n^2 for 64 right-hand sides, against n^3 / 3 of Cholesky.

    Parameters
    ----------
    K : KernelOperator
        Covariance of the data, with its noise.
    solver : str or Method
        "auto", "cholesky", "cg", "blocks", "sgd", "sdd", or a method with settings of its own.
    rng : torch.Generator
        For sketches and for descents.

    Returns
    -------
    name : str
    inverse : Inverse
    reason : str

    Raises
    ------
    InputError
        For an unknown name.
    """
    if isinstance(solver, str) and solver != "auto":
        if solver not in _METHODS:
            raise InputError(f"There is no solver {solver!r}; take auto, {', '.join(_METHODS)}.")
        solver = _METHODS[solver]
    if not isinstance(solver, str):
        return solver.name, solver.prepare(K, rng=rng), "asked for"
    n, left = len(K.x), available_memory(K.x.device)
    fits = n <= _LARGE and (left is None or 10 * n**2 < left)
    if not fits:
        return "cg", ConjugateGradients().prepare(K, rng=rng), f"{n} points are too many to factor"
    if n <= _SMALL:
        return "cholesky", Direct().prepare(K, rng=rng), f"{n} points factor at once"
    method = ConjugateGradients(rank=max(1, n // _SHARE))
    sketch = method.sketch(K, rng=rng)
    steps = expected_steps(K, sketch, method.tolerance, rng=rng)
    if steps * _COLUMNS > n / 6:
        return "cholesky", Direct().prepare(K, rng=rng), f"{n} points factor sooner than CG takes about {steps} steps"
    return "cg", method.with_sketch(K, sketch), f"about {steps} steps for {n} points"


def expected_steps(K: KernelOperator, sketch: Nystrom, tolerance: float, *, rng: torch.Generator) -> int:
    """Steps of conjugate gradients from data of the prior's size to ``tolerance`` noise standard deviations.

    ``sqrt(kappa) log(2 / rtol) / 2`` with ``kappa = 1 + largest eigenvalue of (K - sketch) / noise``, as the sketch is below K.
    """
    product = flat_product(K.with_noise(0.0))

    def rest(v: Tensor) -> Tensor:
        return product(v) - (v @ sketch.vectors.T * sketch.values) @ sketch.vectors

    largest = largest_eigenvalue(Symmetric(rest, Space.of(sketch.vectors)), rng=rng, steps=_LANCZOS)
    rtol = tolerance * math.sqrt(K.noise / float(K.diagonal().max()))
    return math.ceil(0.5 * math.sqrt(1 + max(0.0, largest) / K.noise) * math.log(2 / rtol))
