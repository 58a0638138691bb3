"""The posterior of a fitted tangent model: means, error bars, samples and joint covariances of its outputs."""

import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.laplace.evidence.dense import ExactExpectation
from ctuq.laplace.fit import Fit
from ctuq.laplace.predictive import GaussianPrediction, monte_carlo, prediction, probit, push, sample_covariance
from ctuq.laplace.system.cg_sampler import CGSampler
from ctuq.laplace.system.problem import System, plus_identity
from ctuq.laplace.system.sampling import Conditioned, Draws, condition
from ctuq.laplace.system.solver_choice import fits_densely, for_solver, sampler_of
from ctuq.laplace.tangent.likelihoods import Bernoulli, Categorical
from ctuq.laplace.tangent.model import LinearModel
from ctuq.linops.memory import require_memory
from ctuq.linops.operator import LinearOperator
from ctuq.linops.solve import CG, Solution, Solver

_SOLVERS = ("auto", "cholesky", "cg", "sgd", "sdd")
_TOGETHER, _ROWS = 32, 64
_FINE, _EACH = 1e-8, 0.05


@dataclass(frozen=True, eq=False)
class Classes:
    """Predictive distribution of classes.

    Parameters
    ----------
    probabilities : Tensor, float64, shape (n, *output)
        Of each class, or of 1.
    logits : GaussianPrediction
        Of the linear model, each datum flat.
    """

    probabilities: Tensor
    logits: GaussianPrediction


class Posterior:
    """Gaussian posterior of the weights, and what it says of the network's outputs.

    Every method takes inputs (n, *input), by default the model's own. Made by `posterior`.

    Attributes
    ----------
    fit : Fit
    solver, reason : str
        Which solver, and why.
    draws : int
        Samples behind each std, where it is not exact.
    residual : float
        Largest relative residual of the solves so far.
    """

    def __init__(self, fit: Fit, solver: str, reason: str, *, batch: int | None, draws: int, rng: torch.Generator):
        self.fit, self.solver, self.reason, self.draws = fit, solver, reason, draws
        self.residual = 0.0
        self._batch, self._rng = batch, rng
        self._problem = for_solver(fit.problem, fit.prior, solver)
        self._system = System(self._problem, fit.prior, fit.point)
        self._block: CGSampler | None = None
        self._finely: Solver | None = None
        if solver == "cholesky":
            self._finely = Factored.of(self._system)
        elif solver == "cg":
            self._block = CGSampler(Draws.of(self._problem, 1, rng=rng), rng=rng, each=_EACH)
            self._finely = CG(_FINE, preconditioner=self._block.preconditioner(self._system))

    @property
    def _model(self) -> LinearModel:
        if self.fit.model is None:
            raise InputError("This fit is of a problem without a network: only draws of its weights can be asked for.")
        return self.fit.model

    @property
    def exact(self) -> bool:
        """Whether variances come from solves for each output, to the solver's residual; else from samples."""
        return self.solver == "cholesky"

    @property
    def error(self) -> float:
        """Relative Monte Carlo error of a std; 0 if exact."""
        return 0.0 if self.exact else (2 * self.draws) ** -0.5

    def mean(self, inputs: Tensor | None = None) -> Tensor:
        """Predictive mean of the outputs, (n, *output): at the linear model's mode, or the network's (`LinearModel.centre`)."""
        outputs, jacobian = self._model.at(inputs)
        return self._model.mean(outputs, jacobian, self.fit.mode)

    def weights(self, n: int, *, rng: torch.Generator) -> Tensor:
        """Draws of the weights minus the mode, float64 (n, P)."""
        parts = []
        together = _TOGETHER if self._finely is not None else n
        with warnings.catch_warnings(record=True) as misses:
            for start in range(0, n, together):
                draws = Draws.of(self._problem, min(together, n - start), rng=rng)
                found = self._conditioned(draws)
                self.residual = max(self.residual, float(found.residual.max()))
                parts.append(found.samples)
        if misses:
            warnings.warn(str(misses[-1].message), stacklevel=2)
        return torch.cat(parts)

    def samples(self, n: int, inputs: Tensor | None = None, *, rng: torch.Generator) -> Tensor:
        """Joint draws of all outputs, (n draws, n, *output), float64, without noise."""
        outputs, jacobian = self._model.at(inputs)
        mean = self._model.mean(outputs, jacobian, self.fit.mode).double()
        return mean + push(jacobian, self.weights(n, rng=rng))

    def std(self, inputs: Tensor | None = None) -> Tensor:
        """Standard deviation of each output, float64, without noise; exact, or with the relative error `error`."""
        _, jacobian = self._model.at(inputs)
        if self.exact:
            index = torch.arange(jacobian.range.size, device=self._rng.device)
            variances = [self._covariance(jacobian, rows).diagonal() for rows in index.split(_ROWS)]
            return torch.cat(variances).clamp(min=0).sqrt().reshape(jacobian.range.shape)
        return push(jacobian, self._own).square().mean(0).sqrt()

    def covariance(self, rows: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Joint covariance of chosen outputs, (r, r), float64, without noise.

        Parameters
        ----------
        rows : Tensor of int, shape (r,)
            Flat indices into the outputs (n, *output).
        inputs : Tensor, optional

        Raises
        ------
        ResourceError
            If it does not fit in memory.
        """
        needed = 8.0 * len(rows) * (3 * self._problem.weights + 2 * len(rows))
        require_memory(needed, f"The covariance of {len(rows)} outputs", "ask for fewer", self.fit.mode.device)
        _, jacobian = self._model.at(inputs)
        if self._finely is not None:
            return self._covariance(jacobian, rows)
        chosen = push(jacobian, self._own).flatten(1)[:, rows]
        return chosen.T @ chosen / self.draws

    def predict(self, inputs: Tensor | None = None, *, method: str = "monte_carlo") -> GaussianPrediction | Classes:
        """Predictive distribution of new data: Gaussian with noise, or class probabilities.

        Parameters
        ----------
        inputs : Tensor, optional
        method : {"monte_carlo", "probit"}
            How classes are averaged over the posterior.

        Raises
        ------
        InputError
            For another method.
        ResourceError
            If the joint covariance of the outputs of each datum does not fit in memory.
        """
        if method not in ("monte_carlo", "probit"):
            raise InputError(f"There is no predictive {method!r}; choose monte_carlo or probit.")
        model, likelihood = self._model, self._model.likelihood
        outputs, jacobian = model.at(inputs)
        mean = model.mean(outputs, jacobian, self.fit.mode)
        gaussian = prediction(model, outputs, mean, self._data_covariance(jacobian, len(outputs)), self.fit.sigma2)
        if not isinstance(likelihood, Categorical | Bernoulli):
            return gaussian
        if method == "probit":
            variance = gaussian.std.square().reshape(outputs.shape)
            return Classes(probit(likelihood, mean.double(), variance), gaussian)
        logits = gaussian.samples(self.draws, rng=self._rng).reshape(self.draws, *outputs.shape)
        return Classes(monte_carlo(likelihood, logits), gaussian)

    def _conditioned(self, draws: Draws) -> Conditioned:
        if self._block is not None:
            return self._block.with_draws(draws)(self._system, False, None)
        if self._finely is not None:
            return condition(self._system, draws, self._finely, with_mode=False)
        return sampler_of(self._problem, draws, self.solver, batch=self._batch, rng=self._rng)(self._system, False, None)

    @cached_property
    def _own(self) -> Tensor:
        """The draws behind stds and covariances that are not exact, the same for all of them."""
        return self.weights(self.draws, rng=self._rng)

    def _data_covariance(self, jacobian: LinearOperator, n: int) -> Tensor:
        """Covariance of the outputs of each datum, (n, d, d)."""
        d = jacobian.range.size // n
        at_once = 3 * min(n, max(1, _ROWS // d)) * d * (self._problem.weights + d) if self.exact else self.draws * n * d
        what = f"The joint covariance of the {d} outputs of each of {n} data"
        require_memory(8.0 * (2 * n * d**2 + at_once), what, "take std() or samples(), or fewer inputs", self.fit.mode.device)
        if not self.exact:
            return sample_covariance(push(jacobian, self._own).reshape(self.draws, n, -1))
        index = torch.arange(jacobian.range.size, device=self._rng.device).reshape(n, -1)
        parts = []
        for rows in index.split(max(1, _ROWS // index.shape[1])):
            joint = self._covariance(jacobian, rows.reshape(-1)).reshape(*rows.shape, *rows.shape)
            parts.append(joint.diagonal(dim1=0, dim2=2).movedim(-1, 0))
        return torch.cat(parts)

    def _covariance(self, jacobian: LinearOperator, rows: Tensor) -> Tensor:
        """``J_r S J_r^T`` by the system over the smaller space.

        Over observations that is a difference, of which the plain form would lose a variance to the solver's tolerance. The
        covariance of the errors of the predictor with the weights that were found is larger than the exact one only by the
        square of the residual: ``own - c d^T - d c^T + d K d^T``. `ctuq.gp.exact.Inverse` has it of kernels, whose ``own`` is
        at hand; here the difference is made among weights, since a product with float32 features rounds what it is given.
        """
        assert self._finely is not None
        system = self._system
        unit = torch.zeros(len(rows), jacobian.range.size, dtype=jacobian.range.dtype, device=jacobian.range.device)
        unit[torch.arange(len(rows)), rows] = 1
        J = jacobian.T(unit.reshape(-1, *jacobian.range.shape)).double()
        if not system.is_dual:
            z = system.root_transpose(J)
            return z @ self._solved(z).T
        own = system.covariance(J)
        cross = system.push(own).flatten(1)
        found = self._solved(cross.reshape(-1, *system.target.shape))
        error = own - system.covariance(system.pull(found))
        found = found.flatten(1)
        return J @ error.T - found @ system.push(error).flatten(1).T + found @ found.T

    def _solved(self, b: Tensor) -> Tensor:
        assert self._finely is not None
        found = self._finely(plus_identity(self._system.gram()), b)
        self.residual = max(self.residual, float(found.residual.max()))
        return found.value


@dataclass(frozen=True, eq=False)
class Factored:
    """One Cholesky factorisation, as a solver of that system only; `ctuq.linops.solve.Cholesky` makes one at every call.

    Parameters
    ----------
    factor : Tensor, float64, shape (u, u)
    """

    factor: Tensor

    @classmethod
    def of(cls, system: System) -> "Factored":
        """Of ``I + G`` over the smaller space of a system, its features assembled for a moment."""
        u = system.gram().domain.size
        advice = "use the solver cg"
        require_memory(24 * u**2 + 8 * system.problem.observations * system.problem.weights, "The factor", advice)
        exact = ExactExpectation(system.problem, system.prior)
        return cls(exact.factor(system.point))

    def __call__(self, K: LinearOperator, b: Tensor, *, start: Tensor | None = None) -> Solution:
        """Solve by the factor, whatever K is."""
        flat = b.reshape(len(b), -1).double()
        value = torch.cholesky_solve(flat.T, self.factor).T
        left = flat - (value @ self.factor) @ self.factor.T
        residual = left.norm(dim=1) / flat.norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
        return Solution(value.reshape(b.shape), residual, 1, True)


def posterior(
    fit: Fit,
    *,
    solver: str = "auto",
    batch: int | None = None,
    draws: int = 256,
    rng: torch.Generator | None = None,
) -> Posterior:
    """The posterior at a fit's hyperparameters.

    Parameters
    ----------
    fit : Fit
    solver : {"auto", "cholesky", "cg", "sgd", "sdd"}
        ``cholesky`` is exact; ``cg`` is block conjugate gradients with a Nystrom preconditioner; ``sgd`` (sample-then-optimise)
        and ``sdd`` (stochastic dual descent) see a mini-batch at a time. ``auto`` is cholesky where it fits in memory, else cg.
    batch : int, optional
        Data in a mini-batch.
    draws : int
        Samples behind each std, where it is not exact.
    rng : torch.Generator, optional
        For stds and sketches; by default one of seed 0.

    Raises
    ------
    InputError
        For an unknown solver, and fewer than 2 draws.
    """
    if solver not in _SOLVERS or draws < 2:
        raise InputError(f"There is no posterior by {solver!r} with {draws} draws: choose among {_SOLVERS}, and 2 or more.")
    rng = torch.Generator(fit.mode.device).manual_seed(0) if rng is None else rng
    fits, reason = fits_densely(fit.problem, fit.prior)
    chosen = solver if solver != "auto" else "cholesky" if fits else "cg"
    return Posterior(fit, chosen, reason if solver == "auto" else "as asked", batch=batch, draws=draws, rng=rng)
