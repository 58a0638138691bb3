"""The mode of the linear model: what its weights would be, whatever the network's own are.

For Gaussian noise it is one more right-hand side of the systems that samples are drawn with. For other likelihoods it is the
minimum of a convex function, found by Newton's method with conjugate gradients inside.
"""

import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ctuq.laplace.system.problem import Labels, System
from ctuq.linops.basic import Symmetric
from ctuq.linops.operator import LinearOperator
from ctuq.linops.solve import CG

_MOST_CG, _RTOL = 200, 1e-6
_SUFFICIENT, _SHORTEST = 1e-4, 1e-6


@dataclass(frozen=True, eq=False)
class Mode:
    """Most probable weights of the linear model.

    Parameters
    ----------
    weights : Tensor, float64, shape (P,)
    pull : Tensor, float64, shape (P,)
        ``Sigma^-1 weights``, equal at the mode to the gradient of the log likelihood.
    penalty : float
        ``weights^T Sigma^-1 weights``.
    misfit : Tensor, float64, shape (G,)
        Squared residuals over the noise variance, summed over each noise group; zeros for labels.
    log_likelihood : float
        ``log p(data | weights)``, nats.
    residual : float
        Relative residual of the solve, or of the gradient.
    steps : int
        Products with the system.
    """

    weights: Tensor
    pull: Tensor
    penalty: float
    misfit: Tensor
    log_likelihood: float
    residual: float
    steps: int


def mode_of_dual(system: System, delta: Tensor, residual: float = 0.0, steps: int = 0) -> Mode:
    """The mode from ``delta = (I + B B^T)^-1 t``: its residuals are ``delta`` itself."""
    pull = system.pull(delta[None])
    weights = system.covariance(pull)[0]
    misfit = system.misfit(delta)
    penalty = float(weights @ pull[0])
    return Mode(weights, pull[0], penalty, misfit, system.log_density(misfit), residual, steps)


def mode_of_whitened(system: System, z: Tensor, residual: float = 0.0, steps: int = 0) -> Mode:
    """The mode from its weights in units of the prior, ``R z``; one product with the features."""
    weights = system.root(z[None])
    misfit = system.squares(weights, residual=True)[0] + system.problem.beside[1] / system.point.sigma2
    pull = system.prior.precision(weights, system.point.psi)[0]
    return Mode(weights[0], pull, float(z @ z), misfit, system.log_density(misfit), residual, steps)


def newton_mode(
    system: System,
    labels: Labels,
    *,
    start: Tensor | None = None,
    preconditioner: LinearOperator | None = None,
    max_steps: int = 50,
) -> Mode:
    """The mode for labels: ``argmin -log p(y | offset + J theta) + 1/2 theta^T Sigma^-1 theta``.

    Each step solves with the curvature at the present outputs by conjugate gradients, as exactly as the gradient is small, and
    is halved until the objective falls (Armijo's rule). The function is convex, so that the start does not matter.

    Parameters
    ----------
    system : System
    labels : Labels
    start : Tensor, float64, shape (P,), optional
        First guess of the weights in units of the prior; zeros if None.
    preconditioner : LinearOperator, optional
        Of the curvature in units of the prior, such as its inverse at the network's outputs.
    max_steps : int
        Newton steps to a gradient of a millionth of that at zero; a miss is a warning with the number.
    """
    model = _Objective(system, labels, preconditioner)
    z = torch.zeros(system.problem.weights, dtype=torch.float64, device=system.target.device) if start is None else start
    reference = max(float(model.pull(labels.likelihood.gradient(model.offset, labels.y)).norm()), torch.finfo().tiny)
    outputs = model.offset + model.push(z)
    value, (gradient, size), products = model.value(z, outputs), model.gradient(z, outputs), 1
    for _ in range(max_steps):
        if size <= _RTOL * reference:
            break
        direction, taken = model.newton_direction(outputs, gradient, min(0.1, (size / reference) ** 0.5))
        z, outputs, new = model.search(z, outputs, value, direction, float(gradient @ direction))
        products += taken + 2
        gradient, size = model.gradient(z, outputs)
        if not new < value:
            break
        value = new
    if size > _RTOL * reference:
        warnings.warn(
            f"The mode's gradient is {size / reference:.1e} of its start, not {_RTOL}: take float64 features or more steps.",
            stacklevel=2,
        )
    weights = system.root(z[None])
    pull, none = system.prior.precision(weights, system.point.psi)[0], torch.zeros_like(system.point.sigma2)
    return Mode(weights[0], pull, float(z @ z), none, 0.5 * float(z @ z) - value, size / reference, products)


def whitened(system: System, mode: Mode) -> Tensor:
    """The mode's weights in units of the prior ``(P,)``, where a search at another point may start."""
    return system.root_transpose(mode.pull[None])[0]


class _Objective:
    """Negative log posterior of the weights z in units of the prior, as a function of z and of the outputs there."""

    def __init__(self, system: System, labels: Labels, preconditioner: LinearOperator | None):
        self._system, self._labels, self._preconditioner = system, labels, preconditioner
        self.offset = labels.offset.double()

    def push(self, z: Tensor) -> Tensor:
        """``J R z`` for (..., P): outputs, float64."""
        J = self._labels.jacobian
        return (
            J(self._system.root(z.reshape(-1, z.shape[-1])).to(J.domain.dtype)).double().reshape(*z.shape[:-1], *J.range.shape)
        )

    def pull(self, v: Tensor) -> Tensor:
        """``R^T J^T v`` for (..., *outputs): (..., P), float64."""
        J = self._labels.jacobian
        batch = v.shape[: v.ndim - len(J.range.shape)]
        rows = v.reshape(-1, *J.range.shape).to(J.range.dtype)
        return self._system.root_transpose(J.T(rows).double()).reshape(*batch, -1)

    def value(self, z: Tensor, outputs: Tensor) -> float:
        return float(self._labels.likelihood.negative_log(outputs, self._labels.y)) + 0.5 * float(z @ z)

    def gradient(self, z: Tensor, outputs: Tensor) -> tuple[Tensor, float]:
        """And its norm."""
        gradient = self.pull(self._labels.likelihood.gradient(outputs, self._labels.y)) + z
        return gradient, float(gradient.norm())

    def newton_direction(self, outputs: Tensor, gradient: Tensor, rtol: float) -> tuple[Tensor, int]:
        """The Newton step to a relative tolerance, and the products it took."""

        def curvature(z: Tensor) -> Tensor:
            return z + self.pull(self._labels.likelihood.curvature(outputs, self.push(z)))

        space = replace(self._system.problem.features.domain, dtype=torch.float64)
        with warnings.catch_warnings():
            # A direction that misses its tolerance still descends; only the end of the search counts.
            warnings.simplefilter("ignore")
            found = CG(rtol, _MOST_CG, self._preconditioner)(Symmetric(curvature, space), -gradient[None])
        return found.value[0], found.steps

    def search(self, z: Tensor, outputs: Tensor, value: float, direction: Tensor, slope: float) -> tuple[Tensor, Tensor, float]:
        """Weights, outputs and value after the longest of the steps 1, 1/2, ... that lowers the value enough, if any does."""
        change, length = self.push(direction), 1.0
        while length > _SHORTEST:
            trial, there = z + length * direction, outputs + length * change
            new = self.value(trial, there)
            if new <= value + _SUFFICIENT * length * slope:
                return trial, there, new
            length /= 2
        return z, outputs, value
