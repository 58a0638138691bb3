"""The evidence of several prior variances and the noise, by the engine."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.laplace import DiagonalPrior
from ctuq.laplace.fit import maximise
from ctuq.laplace.system.problem import Problem
from ctuq.linops.basic import Dense
from ctuq.linops.gaussian import stable_cholesky


@dataclass(frozen=True, eq=False)
class Factors:
    """Log variances of several components (c,), noise variance of a ray of weight 1, and the log evidence there, nats."""

    psi: Tensor
    sigma2: float
    value: float


def learn_variances(components: Sequence[Tensor], names: tuple[str, ...], t: Tensor, noise: Tensor) -> Factors:
    """Variances of several fixed components, and the noise, at the maximum of the evidence of ``t``, by the general engine.

    Parameters
    ----------
    components : sequence of Tensor, float64, (m, m) each
        Covariances of the rays at variance 1.
    names : tuple of str
    t, noise : Tensor, float64, shape (m,)
        As for `ctuq.baselines.variances.learn_variance`.
    """
    m, root = len(t), noise.rsqrt()
    whitened = torch.stack([root[:, None] * K * root for K in components])
    # On one scale, so that the search starts from equal shares.
    scales = whitened.diagonal(dim1=1, dim2=2).mean(1)
    whitened = whitened / scales[:, None, None]
    features = Dense(torch.cat([stable_cholesky(K) for K in whitened], 1))
    unknown = torch.full((1,), torch.nan, dtype=torch.float64)
    problem = Problem(features, root * t, unknown, log_scale=-0.5 * float(noise.log().sum()))
    prior = DiagonalPrior(names, tuple(slice(i * m, (i + 1) * m) for i in range(len(names))))
    found = maximise(problem, prior, method="dense", components=whitened)
    return Factors(found.psi - scales.log().cpu(), float(found.sigma2), found.log_evidence)
