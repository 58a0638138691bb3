"""Small linear models with known dense answers."""

from dataclasses import dataclass

import torch

from ctuq.laplace.fit import maximise
from ctuq.laplace.priors.diagonal import DiagonalPrior
from ctuq.laplace.system.problem import Point, Problem
from ctuq.linops.basic import Dense
from ctuq.linops.operator import Space

ONE = DiagonalPrior(("all",), (slice(0, 24),))
TWO = DiagonalPrior(("a", "b"), (slice(0, 10), slice(10, 24)), 0.5 + torch.arange(24.0, dtype=torch.float64) / 10)


def normal(rng, *shape):
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def problem(rng, n=30, outputs=1, P=24, groups=None, spread=0.7, noise=0.5, **options):
    """Data of n inputs with some outputs each, drawn from the model at variance 1, and their dense features (m, P)."""
    decay = torch.exp(-spread * torch.arange(P, dtype=torch.float64) / 4)
    matrix = normal(rng, n * outputs, P) * decay[torch.randperm(P, generator=rng)]
    shape = (n,) if outputs == 1 else (n, outputs)
    count = 1 if groups is None else int(groups.max()) + 1
    t = (matrix @ normal(rng, P)).reshape(shape) + noise * normal(rng, *shape)

    def rows(index):
        chosen = matrix.reshape(n, outputs, P)[index].reshape(-1, P)
        return Dense(chosen, range=Space((len(index), *shape[1:]), torch.float64))

    H = rows(torch.arange(n))
    unknown = torch.full((count,), torch.nan, dtype=torch.float64)
    return Problem(H, t, options.pop("sigma2", unknown), groups=groups, rows=rows, **options), matrix


def fitted(matrix, t, prior):
    """The fit of a prior and one noise to targets (m,) of dense features (m, P), by the exact evidence."""
    unknown = torch.full((1,), torch.nan, dtype=torch.float64)
    return maximise(Problem(Dense(matrix), t.double(), unknown), prior, method="dense")


@dataclass
class Exact:
    """Dense posterior and evidence of a problem at a point."""

    S: torch.Tensor
    mode: torch.Tensor
    evidence: float
    K: torch.Tensor
    H: torch.Tensor
    t: torch.Tensor

    @classmethod
    def of(cls, problem, matrix, prior, psi, sigma2):
        Sigma = prior.covariance(torch.eye(matrix.shape[1], dtype=torch.float64), torch.as_tensor(psi, dtype=torch.float64))
        variances = torch.as_tensor(sigma2, dtype=torch.float64)
        noise = variances.expand(len(matrix)) if problem.groups is None else variances[problem.groups.reshape(-1)]
        t = problem.target.reshape(-1)
        K = matrix @ Sigma @ matrix.T + torch.diag(noise)
        gain = Sigma @ matrix.T @ torch.linalg.inv(K)
        value = torch.distributions.MultivariateNormal(torch.zeros_like(t), K).log_prob(t)
        return cls(Sigma - gain @ matrix @ Sigma, gain @ t, float(value), K, matrix, t)


def point(psi, sigma2):
    return Point(torch.tensor(psi, dtype=torch.float64), torch.tensor(sigma2, dtype=torch.float64))
