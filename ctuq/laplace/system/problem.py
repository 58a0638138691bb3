"""What evidence and posterior know of a model: whitened features, target and noise, with no network in sight.

``t = H theta + e`` with ``theta ~ N(0, Sigma(psi))`` and ``e`` of variance ``sigma2_g`` for the observations of noise group g.
For curved likelihoods ``H`` is whitened by the likelihood's curvature, the noise has variance 1, and only the mode knows more.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.laplace.priors.diagonal import Prior
from ctuq.linops.basic import Symmetric
from ctuq.linops.operator import LinearOperator


class Curved(Protocol):
    """What the mode asks of a likelihood that is not Gaussian; `ctuq.laplace.tangent.likelihoods` has them."""

    def negative_log(self, outputs: Tensor, y: Tensor) -> Tensor:
        """``-log p(y | outputs)``, summed over all data."""
        ...

    def gradient(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Gradient of `negative_log` in the outputs."""
        ...

    def curvature(self, outputs: Tensor, v: Tensor) -> Tensor:
        """Its Hessian applied to ``v`` (..., *outputs)."""
        ...


@dataclass(frozen=True, eq=False)
class Labels:
    """Targets of a likelihood that is not Gaussian, with the tangent model ``offset + J theta`` of its outputs.

    Parameters
    ----------
    likelihood : Curved
    jacobian : LinearOperator
        J, from weights (P,) to outputs.
    offset : Tensor
        Outputs at theta = 0.
    y : Tensor
        As the likelihood takes them.
    """

    likelihood: Curved
    jacobian: LinearOperator
    offset: Tensor
    y: Tensor


@dataclass(frozen=True, eq=False)
class Problem:
    """A linear model to be fitted.

    Parameters
    ----------
    features : LinearOperator
        H, from weights (P,) to observations ``(n, ...)`` whitened by what is known of the noise.
    target : Tensor, float64, observation shape
        Whitened; zeros with ``labels``.
    sigma2 : Tensor, float64, shape (G,)
        On the CPU. Noise variance of each group: fixed, or where learning starts (NaN: from the target's variance).
    learn_noise : bool
    groups : Tensor of int, observation shape, optional
        Noise group of each observation; all 0 if None.
    rows : callable, optional
        ``rows(index)`` is H of the data with these indices, for mini-batches.
    axis : int
        Axis of the observations that the data are counted along.
    batch : int, optional
        Data whose products are formed at once where all together would not fit in memory; needs ``rows``.
    normal : callable, optional
        ``normal(theta, precision)`` is ``H^T diag(precision) H theta`` for (k, P), where that is cheaper than two products.
    log_scale : float
        Log density of the data minus that of the whitened target, ``1/2 sum log w``.
    labels : Labels, optional
        For likelihoods that are not Gaussian.
    over_observations : bool, optional
        Which of the two systems is solved; by default the smaller one.
    beside : tuple of int and float
        Number and sum of squares of further whitened observations, of one noise group, that no weights reach.

    Raises
    ------
    InputError
        If shapes do not agree, or the target is not finite.
    """

    features: LinearOperator
    target: Tensor
    sigma2: Tensor
    learn_noise: bool = True
    groups: Tensor | None = None
    rows: Callable[[Tensor], LinearOperator] | None = None
    axis: int = 0
    batch: int | None = None
    normal: Callable[[Tensor, Tensor | None], Tensor] | None = None
    log_scale: float = 0.0
    labels: Labels | None = None
    over_observations: bool | None = None
    beside: tuple[int, float] = (0, 0.0)

    def __post_init__(self):
        shape = self.features.range.shape
        if tuple(self.target.shape) != shape:
            raise InputError(f"The target has shape {tuple(self.target.shape)}, but the features observe {shape}.")
        if not self.target.isfinite().all():
            raise InputError(f"{int((~self.target.isfinite()).sum())} of {self.observations} target values are not finite.")
        if self.groups is not None and tuple(self.groups.shape) != shape:
            raise InputError(f"The noise groups have shape {tuple(self.groups.shape)}, but the observations {shape}.")

    @property
    def data(self) -> int:
        """Number of data, n, that mini-batches are made of."""
        return self.target.shape[self.axis]

    def part(self, index: Tensor) -> "Problem":
        """The problem of the data with these indices.

        Raises
        ------
        InputError
            If the problem has no ``rows``.
        """
        if self.rows is None:
            raise InputError("Mini-batches need a problem with `rows`: give it, or use a solver that sees all data.")
        target = self.target.index_select(self.axis, index)
        groups = None if self.groups is None else self.groups.index_select(self.axis, index)
        return replace(self, features=self.rows(index), target=target, groups=groups, batch=None, rows=None, normal=None)

    def parts(self) -> Iterator["Problem"]:
        """The problem, or the parts of it whose products fit in memory one after the other."""
        if self.batch is None:
            yield self
        else:
            for index in torch.arange(self.data, device=self.target.device).split(self.batch):
                yield self.part(index)

    @property
    def observations(self) -> int:
        """Number of observations, m."""
        return self.features.range.size

    @property
    def weights(self) -> int:
        """Number of weights, P."""
        return self.features.domain.size

    @property
    def is_dual(self) -> bool:
        """Whether the observations are the space to solve in; never where the data are seen part by part."""
        if self.batch is not None:
            return False
        return self.observations <= self.weights if self.over_observations is None else self.over_observations

    @property
    def counts(self) -> Tensor:
        """Observations of each noise group, float64 (G,), on the CPU."""
        return self.by_group(torch.ones_like(self.target)).cpu() + self.beside[0]

    def by_group(self, values: Tensor) -> Tensor:
        """Sums over the observations of each noise group of ``(..., *observations)``: ``(..., G)``."""
        batch = values.shape[: values.ndim - self.target.ndim]
        flat = values.reshape(*batch, -1)
        if self.groups is None:
            return flat.sum(-1, keepdim=True)
        out = flat.new_zeros(*batch, len(self.sigma2))
        return out.index_add(-1, self.groups.reshape(-1), flat)


@dataclass(frozen=True, eq=False)
class Point:
    """Hyperparameters of a prior and of the noise, on the CPU.

    Parameters
    ----------
    psi : Tensor, float64, shape (h,)
        Log hyperparameters of the prior, in the order of its ``names``.
    sigma2 : Tensor, float64, shape (G,)
        Noise variance of each group of observations.
    """

    psi: Tensor
    sigma2: Tensor

    @property
    def vector(self) -> Tensor:
        """``psi`` and the logarithms of the noise variances, in one vector."""
        return torch.cat([self.psi, self.sigma2.log()])

    @property
    def digest(self) -> str:
        """A name for work that depends on the point."""
        return hashlib.blake2b(self.vector.double().numpy().tobytes(), digest_size=16).hexdigest()

    def named(self, names: tuple[str, ...], chosen: list[bool]) -> tuple[str, ...]:
        """Names of the chosen entries of `vector`, of the prior's ``names`` and the noise groups."""
        every = (*names, *(f"noise {g}" for g in range(len(self.sigma2))))
        return tuple(name for name, is_chosen in zip(every, chosen, strict=True) if is_chosen)

    def moved(self, vector: Tensor) -> "Point":
        """The point with this `vector`."""
        return Point(vector[: len(self.psi)], vector[len(self.psi) :].exp())


class System:
    """A problem at one point, in the units of its noise and its prior.

    With D the noise, R a root of Sigma and ``B = D^-1/2 H R``, posterior and evidence need one of two systems with the same
    eigenvalues: ``I + B B^T`` over observations, or ``I + B^T B`` over weights. Vectors are float64 where nothing else is said;
    products of H keep its type.

    Parameters
    ----------
    problem : Problem
    prior : Prior
    point : Point

    Attributes
    ----------
    target : Tensor, observation shape
        ``D^-1/2 t``.
    """

    def __init__(self, problem: Problem, prior: Prior, point: Point):
        self.problem, self.prior, self.point = problem, prior, point
        root = point.sigma2.sqrt().to(problem.target.device)
        self._root = root[0] if problem.groups is None else root[problem.groups]
        self.target = problem.target / self._root

    def push(self, weights: Tensor) -> Tensor:
        """``D^-1/2 H theta`` for weights (k, P): observations, float64."""
        features = self.problem.features
        return features(weights.to(features.domain.dtype)).double() / self._root

    def pull(self, values: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
        """``H^T D^-1/2 v`` for observations (k, ...): weight vectors (k, P)."""
        features = self.problem.features
        return features.T((values / self._root).to(features.range.dtype)).to(dtype)

    def noise_root(self) -> Tensor:
        """``D^1/2``: one number, or one for each observation."""
        return self._root

    def parts(self) -> Iterator["System"]:
        """The system of each part of the problem; their Gram matrices over weights, less the identities, sum to the whole's."""
        return (System(part, self.prior, self.point) for part in self.problem.parts())

    def part(self, index: Tensor) -> "System":
        """The system of the data with these indices."""
        return System(self.problem.part(index), self.prior, self.point)

    def covariance(self, vectors: Tensor) -> Tensor:
        """``Sigma v``."""
        return self.prior.covariance(vectors, self.point.psi)

    def root(self, vectors: Tensor) -> Tensor:
        """``R v``."""
        return self.prior.root(vectors, self.point.psi)

    def root_transpose(self, vectors: Tensor) -> Tensor:
        """``R^T v``."""
        return self.prior.root_transpose(vectors, self.point.psi)

    @property
    def is_dual(self) -> bool:
        """As the problem's."""
        return self.problem.is_dual

    def dual_gram(self) -> LinearOperator:
        """``B B^T`` over observations."""
        space = replace(self.problem.features.range, dtype=torch.float64)
        return Symmetric(lambda v: self.push(self.covariance(self.pull(v))), space)

    def primal_gram(self) -> LinearOperator:
        """``B^T B`` over weights."""
        return Symmetric(self.normal, replace(self.problem.features.domain, dtype=torch.float64))

    def normal(self, z: Tensor) -> Tensor:
        """``B^T B z`` for (k, P), in the type of z."""
        weights, fast = self.root(z), self.problem.normal
        if fast is None or self.problem.batch is not None:
            return self.root_transpose(_sum(part.pull(part.push(weights)) for part in self.parts()).to(z))
        precision = self._root.square().reciprocal().expand(self.target.shape)
        return self.root_transpose(fast(weights.to(self.problem.features.domain.dtype), precision).to(z))

    def gram(self) -> LinearOperator:
        """The one over the smaller space."""
        return self.dual_gram() if self.is_dual else self.primal_gram()

    def pulled_target(self) -> Tensor:
        """``B^T D^-1/2 t``: (1, P)."""
        return self.root_transpose(_sum(part.pull(part.target[None]) for part in self.parts()))

    def squares(self, weights: Tensor, *, residual: bool = False) -> Tensor:
        """``|D^-1/2 H theta|^2`` of each noise group for weights (k, P), or of the target minus it: (k, G), on the CPU."""
        share = float(residual)

        def of(part: "System") -> Tensor:
            return part.problem.by_group((share * part.target - part.push(weights)).square()).cpu()

        return _sum(of(part) for part in self.parts())

    def misfit(self, residuals: Tensor) -> Tensor:
        """Squares of whitened residuals and of observations that no weights reach, by noise group: (G,), on the CPU."""
        return self.problem.by_group(residuals.square()).cpu() + self.problem.beside[1] / self.point.sigma2

    def log_density(self, misfit: Tensor) -> float:
        """``log N(t; H theta, D)`` from the whitened squared residuals of each group (G,)."""
        noise = (self.problem.counts * (2 * math.pi * self.point.sigma2).log()).sum()
        return float(-0.5 * (misfit.sum() + noise)) + self.problem.log_scale


def _sum(terms: Iterator[Tensor]) -> Tensor:
    """Sum of tensors that need not exist at the same time."""
    total = next(terms)
    for term in terms:
        total = total + term
    return total


def plus_identity(gram: LinearOperator) -> LinearOperator:
    """``I + G``."""
    return Symmetric(lambda v: v + gram._apply(v), gram.domain)
