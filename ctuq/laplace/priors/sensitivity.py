"""How a prior covariance changes with its hyperparameters: the derivatives ``dSigma_i = d Sigma / d psi_i``."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ctuq.laplace.priors.diagonal import Prior

_STEP = 1e-3


@runtime_checkable
class _Differentiated(Protocol):
    """A prior that knows its own derivatives, such as one whose variances do not each govern weights of their own."""

    def derivatives(self, vectors: Tensor, psi: Tensor) -> Iterator[Tensor]:
        """``dSigma_i v`` for each hyperparameter and each row of ``vectors`` (k, P)."""
        ...


def derivatives(prior: Prior, psi: Tensor, vectors: Tensor) -> Iterator[Tensor]:
    """``dSigma_i v`` for each hyperparameter and each row of ``vectors`` (k, P).

    Exact for variances, of which Sigma is a linear function; lengthscales by differences of fourth order (error below 1e-10).
    """
    if isinstance(prior, _Differentiated):
        yield from prior.derivatives(vectors, psi)
        return
    image = prior.covariance(vectors, psi)
    for slices in prior.members:
        out = torch.zeros_like(image)
        for s in slices:
            out[:, s] = image[:, s]
        yield out
    yield from _of_lengthscales(prior, psi, vectors)


def _of_lengthscales(prior: Prior, psi: Tensor, vectors: Tensor) -> Iterator[Tensor]:
    for i in range(len(prior.members), len(psi)):
        step = torch.zeros_like(psi)
        step[i] = _STEP
        near, far = (prior.covariance(vectors, psi + n * step) - prior.covariance(vectors, psi - n * step) for n in (1, 2))
        yield (8 * near - far) / (12 * _STEP)


def pair_products(prior: Prior, psi: Tensor, vectors: Tensor) -> Tensor:
    """``v_j^T dSigma_i v_l`` for each hyperparameter i and all pairs of rows of ``vectors`` (k, P): (d, k, k), float64, CPU."""
    if isinstance(prior, _Differentiated):
        return torch.stack([vectors @ image.T for image in prior.derivatives(vectors, psi)]).double().cpu()
    image = prior.covariance(vectors, psi)
    products = [torch.stack([vectors[:, s] @ image[:, s].T for s in slices]).sum(0) for slices in prior.members]
    products += [vectors @ image.T for image in _of_lengthscales(prior, psi, vectors)]
    return torch.stack(products).double().cpu()


def derivative_traces(prior: Prior, psi: Tensor, matrix: Tensor) -> Tensor:
    """``tr(M dSigma_i)`` of a symmetric matrix over all weights (P, P), for each hyperparameter: (d,), on the CPU."""
    return torch.stack([image.diagonal().sum() for image in derivatives(prior, psi, matrix)]).cpu()
