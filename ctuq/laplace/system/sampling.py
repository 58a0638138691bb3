"""Posterior weight samples by exact conditioning of prior draws (Matheron's rule), with any solver and from frozen noise.

A draw is a pair of standard normal x (P,) and e (observations). In the units of `System`, with ``B = D^-1/2 H R``,

    dual     z = x + B^T delta,  (I + B B^T) delta = e - B x
    primal   (I + B^T B) z = x + B^T e

give the same ``z``, and ``theta = R z`` is a draw of the posterior minus its mean. Kept x and e make every point of a search
see the same noise, so that samples move smoothly with the hyperparameters and warm starts pay.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.laplace.system.mode import Mode, mode_of_dual, mode_of_whitened
from ctuq.laplace.system.problem import Problem, System, plus_identity
from ctuq.linops.solve import Solution, Solver


@dataclass(frozen=True, eq=False)
class Draws:
    """Standard normal draws that samples are made from.

    Parameters
    ----------
    prior : Tensor, shape (k, P)
        x, in the type of the features.
    noise : Tensor, shape (k, *observations), optional
        e; not kept where the data are seen part by part.
    pulled : Tensor, shape (G, k, P), optional
        ``H^T e`` of each noise group, for the system over weights, in the type of the features.
    """

    prior: Tensor
    noise: Tensor | None
    pulled: Tensor | None

    @classmethod
    def of(cls, problem: Problem, count: int, *, rng: torch.Generator) -> "Draws":
        """``count`` independent draws; one pass over the data where the weights are the smaller space."""
        rng = _branch(rng)
        prior = problem.features.domain.randn(count, rng=rng)
        if problem.is_dual:
            return cls(prior, problem.features.range.randn(count, rng=rng), None)
        pulled, noise = None, None
        for part in problem.parts():
            noise = part.features.range.randn(count, rng=rng)
            pulls = torch.stack([part.features.T(e) for e in _by_group(noise, part.groups, len(part.sigma2))])
            pulled = pulls if pulled is None else pulled.add_(pulls)
        return cls(prior, noise if problem.batch is None else None, pulled)

    def __len__(self) -> int:
        return len(self.prior)

    def pulls(self, system: System) -> list[tuple[float, Tensor]]:
        """``H^T D^-1/2 e`` as a sum of vectors (k, P) with their factors, none of them computed again where they are kept."""
        if self.pulled is not None:
            return list(zip(system.point.sigma2.rsqrt().tolist(), self.pulled, strict=True))
        assert self.noise is not None
        return [(1.0, system.pull(self.noise, dtype=self.prior.dtype))]

    def centre(self, system: System, *, dtype: torch.dtype = torch.float64) -> Tensor:
        """``x + B^T e``, the minimiser of the regulariser with the noise in it: (k, P)."""
        pull = torch.zeros_like(self.prior, dtype=dtype)
        for factor, pulled in self.pulls(system):
            pull.add_(pulled, alpha=factor)
        return system.root_transpose(pull).add_(self.prior)


@dataclass(frozen=True, eq=False)
class Conditioned:
    """Draws conditioned on the observations, and the mode if it was asked for.

    Parameters
    ----------
    samples : Tensor, shape (k, P)
        Draws of the posterior minus its mean: float64, or in the type of the features from stochastic gradients.
    pull : Tensor, shape (k, P)
        ``Sigma^-1 (samples - prior draws)``, of covariance ``H^T K^-1 H``.
    squares : Tensor, float64, shape (k, G)
        ``|D^-1/2 H samples|^2`` of each noise group, on the CPU.
    mode : Mode, optional
    solution : Tensor
        Unknowns of the solve, where the next one may start.
    residual : Tensor, shape (k,) or (k + 1,)
        Relative residuals, of the mode last.
    gap : float
        Relative difference of the effective dimension in two forms that are equal for an exact solve.
    steps : int
        Products with the system.
    error : float
        Bound of what the residuals change in any linear functional of a sample, in units of its posterior standard deviation.
    """

    samples: Tensor
    pull: Tensor
    squares: Tensor
    mode: Mode | None
    solution: Tensor
    residual: Tensor
    gap: float
    steps: int
    error: float = 0.0


def condition(
    system: System, draws: Draws, solver: Solver, *, with_mode: bool = True, start: Tensor | None = None
) -> Conditioned:
    """Condition all draws, and the mode with them, in one solve over the smaller space.

    Parameters
    ----------
    system : System
    draws : Draws
    solver : Solver
        All right-hand sides share its products.
    with_mode : bool
        Solve for the mode of Gaussian noise as one more right-hand side.
    start : Tensor, optional
        ``solution`` of an earlier call with the same draws.
    """
    return (_by_dual if system.is_dual else _by_primal)(system, draws, solver, with_mode, start)


def _by_dual(system: System, draws: Draws, solver: Solver, with_mode: bool, start: Tensor | None) -> Conditioned:
    assert draws.noise is not None
    prior, noise = system.root(draws.prior.double()), draws.noise.double()
    b = noise - system.push(prior)
    if with_mode:
        b = torch.cat([b, system.target[None]])
    found = solver(plus_identity(system.dual_gram()), b, start=start)
    delta = found.value[: len(draws)]
    pull = system.pull(delta)
    samples = prior + system.covariance(pull)
    fitted = system.push(samples)
    squares = system.problem.by_group(fitted.square()).cpu()
    mode = mode_of_dual(system, found.value[-1], float(found.residual[-1]), found.steps) if with_mode else None
    left = noise - delta - fitted
    weighed = _weigh(solver, left)
    cross = 2 * (delta * (left if weighed is None else left - weighed)).sum()
    gap = explained_error(squares, cross, left, weighed)
    # An error r of delta is one of B^T A^-1 r in z, of energy r^T (I - A^-1) r in the norm of the posterior's precision.
    error = float(left.flatten(1).norm(dim=1).max())
    return Conditioned(samples, pull, squares, mode, found.value, found.residual, gap, found.steps, error)


def _by_primal(system: System, draws: Draws, solver: Solver, with_mode: bool, start: Tensor | None) -> Conditioned:
    centre = draws.centre(system)
    b = torch.cat([centre, system.pulled_target()]) if with_mode else centre
    found = solver(plus_identity(system.primal_gram()), b, start=start)
    z = found.value[: len(draws)]
    return conditioned_by(system, draws, found, centre - z - system.normal(z), solver)


def conditioned_by(system: System, draws: Draws, found: Solution, left: Tensor, solver: Solver | None = None) -> Conditioned:
    """What a solution of the system over weights says, the mode from its last row where there is one more than draws.

    Parameters
    ----------
    system : System
    draws : Draws
    found : Solution
    left : Tensor, shape (k, P)
        Residuals of the draws.
    solver : Solver, optional
        Whose preconditioner tells what the residuals weigh.
    """
    z = found.value[: len(draws)]
    x = draws.prior.to(z)
    pull = system.prior.precision(system.root(z - x), system.point.psi)
    samples = system.root(z)
    squares = system.squares(samples)
    with_mode = len(found.value) > len(draws)
    mode = mode_of_whitened(system, found.value[-1].double(), float(found.residual[-1]), found.steps) if with_mode else None
    weighed = _weigh(solver, left)
    cross = 2 * ((x - z) * (left if weighed is None else weighed)).sum()
    gap = explained_error(squares, cross, left, weighed)
    error = float((left * (left if weighed is None else weighed)).sum(1).clamp(min=0).max().sqrt())
    return Conditioned(samples, pull, squares, mode, found.value, found.residual, gap, found.steps, error)


def explained_error(squares: Tensor, cross: Tensor, left: Tensor, weighed: Tensor | None) -> float:
    """Relative error of the effective dimension from residuals r: linear term and energy ``r^T M^-1 r``, summed over samples.

    A relative residual says little where eigenvalues span many decades: the energy, with a preconditioner for M, is the error
    of the solution in the norm that the effective dimension is measured in. Without a preconditioner it is an upper bound.
    """
    energy = (left * (left if weighed is None else weighed)).sum()
    return float((cross.abs() + energy) / squares.sum().clamp(min=torch.finfo(torch.float64).tiny))


def _weigh(solver: Solver | None, left: Tensor) -> Tensor | None:
    preconditioner = getattr(solver, "preconditioner", None)
    return None if preconditioner is None else preconditioner(left)


def _branch(rng: torch.Generator) -> torch.Generator:
    """A generator seeded from ``rng``.

    Draws straight from a generator of the seed that initialised the network repeat its first weights: a prior draw along the
    trained weights was measured 30 standard deviations long in the direction of the network's own output.
    """
    seed = torch.randint(2**62, (), generator=rng, device=rng.device)
    return torch.Generator(rng.device).manual_seed(int(seed))


def _by_group(noise: Tensor, groups: Tensor | None, count: int) -> list[Tensor]:
    """The draws of each noise group, zero for the others."""
    return [noise] if groups is None else [noise * (groups == g) for g in range(count)]
