"""Predictive distributions of a linearised network: exact Gaussian, Monte Carlo and probit."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.laplace.priors.diagonal import Prior
from ctuq.laplace.tangent.likelihoods import Bernoulli, Categorical
from ctuq.linops.gaussian import log_evidence
from ctuq.linops.gram import gram


@dataclass(frozen=True, eq=False)
class GaussianPrediction:
    """Predictive distribution of n data with d outputs each, correlated within a datum.

    Parameters
    ----------
    mean : Tensor, float64, shape (n, d)
    covariance : Tensor, float64, shape (n, d, d)
        Of the function, without noise.
    noise : Tensor, float64, shape (n, d)
        Noise variance of an observation; zeros for the function alone.
    """

    mean: Tensor
    covariance: Tensor
    noise: Tensor

    @property
    def std(self) -> Tensor:
        """Standard deviation of each output of the function, (n, d)."""
        return self.covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()

    @property
    def total_std(self) -> Tensor:
        """Standard deviation of each observation, (n, d)."""
        return (self.std.square() + self.noise).sqrt()

    def log_density(self, y: Tensor) -> Tensor:
        """Joint log density of the observations (n, d) of each datum, nats, (n,)."""
        total = self.covariance + torch.diag_embed(self.noise)
        L = torch.linalg.cholesky(total)
        z = torch.linalg.solve_triangular(L, (y.double() - self.mean)[..., None], upper=False)[..., 0]
        log_det = L.diagonal(dim1=1, dim2=2).log().sum(1)
        return -0.5 * z.square().sum(1) - log_det - 0.5 * self.mean.shape[1] * math.log(2 * math.pi)

    def samples(self, k: int, *, rng: torch.Generator) -> Tensor:
        """Draws of the function, (k, n, d); data are independent of each other here, outputs of one are not."""
        values, vectors = torch.linalg.eigh(self.covariance)
        root = vectors * values.clamp(min=0).sqrt()[:, None, :]
        z = torch.randn(k, *self.mean.shape, generator=rng, device=rng.device, dtype=torch.float64).to(self.mean.device)
        return self.mean + (root @ z[..., None])[..., 0]


def exact_covariance(new: Tensor, features: Tensor, prior: Prior, psi: Tensor, noise: Tensor) -> Tensor:
    """Posterior covariance of the outputs of each new datum, from assembled features.

    With a prior root R and ``G = H R``: ``J R (I + G^T N^-1 G)^-1 R^T J^T`` where there are fewer weights than observations,
    ``J R (I - G^T (G G^T + N)^-1 G) R^T J^T`` else.

    Parameters
    ----------
    new : Tensor, shape (n, d, P)
        Dense Jacobians at the new data.
    features : Tensor, shape (m, P)
        Whitened features of the training data.
    prior : Prior
    psi : Tensor, float64
    noise : Tensor, float64, shape (m,)
        Noise variance of each whitened observation.

    Returns
    -------
    Tensor, float64, shape (n, d, d)
    """
    n, d, P = new.shape
    J = prior.root_transpose(new.reshape(n * d, P), psi).double()
    G = prior.root_transpose(features, psi)
    m = len(G)
    if m <= P:
        L = log_evidence(gram(G) + torch.diag(noise.double()), noise.new_zeros(m, dtype=torch.float64))[1]
        cross = torch.linalg.solve_triangular(L, G.double() @ J.T, upper=False)
        explained = cross.T.reshape(n, d, m)
        own = J.reshape(n, d, P)
        return own @ own.mT - explained @ explained.mT
    K = gram((G / noise.sqrt().to(G)[:, None]).T) + torch.eye(P, dtype=torch.float64, device=G.device)
    left = torch.linalg.solve_triangular(torch.linalg.cholesky(K), J.T, upper=False).T.reshape(n, d, P)
    return left @ left.mT


def sample_covariance(deviations: Tensor) -> Tensor:
    """Covariance of the outputs of each datum from draws of known mean zero ``(k, n, d)``, float64 (n, d, d).

    A variance has the relative standard error ``(2 / k)^1/2``.
    """
    rows = deviations.double().movedim(0, -1)
    return rows @ rows.mT / deviations.shape[0]


def monte_carlo(likelihood: Categorical | Bernoulli, samples: Tensor) -> Tensor:
    """Mean of the probabilities over draws of the logits.

    Parameters
    ----------
    likelihood : Categorical or Bernoulli
    samples : Tensor, shape (k, n, *output)

    Returns
    -------
    Tensor, shape (n, *output)
        Probabilities of the classes, or of 1.
    """
    return likelihood.probabilities(samples.flatten(0, 1)).unflatten(0, samples.shape[:2]).mean(0)


def probit(likelihood: Categorical | Bernoulli, mean: Tensor, variance: Tensor) -> Tensor:
    """Probabilities at the logits ``mean / (1 + pi / 8 variance)^1/2``: MacKay's approximation, of marginals only.

    For classes it forgets the correlation of the logits; it says nothing of joint predictions.

    Parameters
    ----------
    likelihood : Categorical or Bernoulli
    mean, variance : Tensor, shape (n, *output)
        Of the logits.
    """
    if bool((variance < 0).any()):
        raise InputError("A variance of the logits is negative: take the predictive covariance's diagonal.")
    return likelihood.probabilities(mean / (1 + math.pi / 8 * variance).sqrt())


def log_likelihoods(likelihood: Categorical | Bernoulli, samples: Tensor, y: Tensor) -> Tensor:
    """``log p(y_i | logits_ji)`` of each draw and datum, (k, n), summed over several outputs of a datum.

    Parameters
    ----------
    likelihood : Categorical or Bernoulli
    samples : Tensor, shape (k, n, *output)
    y : Tensor
        Targets as the likelihood takes them.
    """
    y = likelihood.targets(samples[0], y)
    return torch.stack([likelihood.log_probability(draw, y).reshape(len(draw), -1).sum(1) for draw in samples])


def gaussian_log_likelihoods(samples: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    """``log N(y_i; f_ji, noise_i)`` of each draw ``f`` (k, n, d) and datum, (k, n), summed over its outputs."""
    noise = noise.double().expand(y.shape)
    squares = (samples.double() - y.double()).square() / noise
    return -0.5 * (squares + (2 * math.pi * noise).log()).flatten(2).sum(2)
