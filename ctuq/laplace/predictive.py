"""Predictive distributions of a linearised network: Gaussian, Monte Carlo and probit, and their log likelihood."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.laplace.evidence.dense import ExactExpectation
from ctuq.laplace.evidence.sampled import Expectation
from ctuq.laplace.tangent.features import ObservedFeatures
from ctuq.laplace.tangent.likelihoods import Bernoulli, Categorical
from ctuq.laplace.tangent.model import LinearModel
from ctuq.linops.operator import LinearOperator

_DRAWS = 256


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


def _new_noise(model: LinearModel, sigma2: Tensor, count: int) -> Tensor:
    """Noise variance of each output of a new datum of weight 1, (count,), float64; zeros for classes.

    Groups that are the same for all data hold for new data too; else the new datum has the mean variance of an observation.
    """
    sigma2 = sigma2.to(model.weights.device)
    if isinstance(model.likelihood, Categorical | Bernoulli):
        return torch.zeros(count, dtype=torch.float64, device=sigma2.device)
    groups = model.groups
    if groups is None:
        return sigma2.expand(count)
    flat = groups.reshape(len(groups), -1)
    if bool((flat == flat[:1]).all()) and flat.shape[1] == count:
        return sigma2[flat[0]]
    return sigma2[groups].mean().expand(count)


def prediction(model: LinearModel, outputs: Tensor, mean: Tensor, covariance: Tensor, sigma2: Tensor) -> GaussianPrediction:
    """The Gaussian of outputs (n, *output), each datum flat, with the noise of new data.

    Parameters
    ----------
    model : LinearModel
    outputs, mean : Tensor, shape (n, *output)
        Of the network, and of the prediction.
    covariance : Tensor, shape (n, d, d)
    sigma2 : Tensor, shape (G,)
    """
    flat = mean.double().reshape(len(outputs), -1)
    return GaussianPrediction(flat, covariance, _new_noise(model, sigma2, flat.shape[1]).expand(flat.shape))


def _mean_log_likelihood(model: LinearModel, predicted: GaussianPrediction, outputs: Tensor, y: Tensor) -> float:
    """Mean log likelihood of a datum, nats: exact for Gaussian noise, by draws of the logits for classes.

    Classes use the same 256 draws at every call, so that differences are those of the predictions.
    """
    likelihood = model.likelihood
    if isinstance(likelihood, Categorical | Bernoulli):
        rng = torch.Generator(outputs.device).manual_seed(0)
        logits = predicted.samples(_DRAWS, rng=rng).reshape(_DRAWS, *outputs.shape)
        each = log_likelihoods(likelihood, logits, y)
        return float((each.logsumexp(0) - torch.tensor(float(len(each))).log()).mean())
    y = y[..., None] if y.ndim == outputs.ndim - 1 and outputs.shape[-1] == 1 else y
    if y.shape != outputs.shape:
        raise InputError(f"Held-out targets have shape {tuple(y.shape)}, but the outputs {tuple(outputs.shape)}.")
    return float(predicted.log_density(y.reshape(predicted.mean.shape)).mean())


class HeldOutScore:
    """Data that a fit does not see, scored at any hyperparameters.

    Parameters
    ----------
    model : LinearModel
    inputs : Tensor, shape (n', *input)
    targets : Tensor
    """

    def __init__(self, model: LinearModel, inputs: Tensor, targets: Tensor):
        if isinstance(model.features, ObservedFeatures):
            raise InputError("Held-out data need a model of many data; views of one image are held out before linearising.")
        self._model, self._targets = model, targets
        self._outputs, self._jacobian = model.at(inputs)

    def sampled(self, found: Expectation) -> float:
        """Mean log likelihood by posterior samples."""
        assert found.samples is not None
        deviations = push(self._jacobian, found.samples).reshape(len(found.samples), len(self._outputs), -1)
        return self._score(found, sample_covariance(deviations))

    def exact(self, expectation: ExactExpectation) -> Callable[[Expectation], float]:
        """A score by the exact covariance."""
        dense = self._jacobian.dense().reshape(len(self._outputs), -1, self._jacobian.domain.size)
        return lambda found: self._score(found, expectation.output_covariance(found.point, dense))

    def _score(self, found: Expectation, covariance: Tensor) -> float:
        mean = self._model.mean(self._outputs, self._jacobian, found.mode.weights)
        predicted = prediction(self._model, self._outputs, mean, covariance, found.point.sigma2)
        return _mean_log_likelihood(self._model, predicted, self._outputs, self._targets)


def push(jacobian: LinearOperator, weights: Tensor) -> Tensor:
    """``J theta`` for float64 weights (k, P), float64."""
    return jacobian(weights.to(jacobian.domain.dtype)).double()
