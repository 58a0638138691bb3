"""The total-variation hyperprior (PredCP) in closed form."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.laplace.priors.diagonal import Prior


@dataclass(frozen=True, eq=False)
class VariationPrior:
    """``p(psi) = prod_b Exp(kappa_b) |d kappa_b / d psi_b|`` with ``kappa_b`` the expected total variation under block b.

    Every difference of neighbouring outputs is Gaussian with mean ``mu_k`` and variance ``sum_c a_c q_ck``, so that
    ``E|z| = s sqrt(2 / pi) exp(-mu^2 / 2 s^2) + mu erf(mu / (s sqrt 2))`` needs no sampling.

    Parameters
    ----------
    prior : Prior
    variances : Tensor, float64, shape (c, k)
        ``q_ck``: variance of difference k under component c at coefficient 1. Those of a tap distance may be negative; only the
        sum over a block is a variance.
    means : Tensor, float64, shape (k,)
        ``mu_k``: differences of the reconstruction.
    owners : sequence of int, length c
        The entry of ``psi`` (a variance) that each component belongs to.
    strength : float
        Rate of the exponential, per unit of total variation.
    """

    prior: Prior
    variances: Tensor
    means: Tensor
    owners: Sequence[int]
    strength: float

    def expected_variation(self, psi: Tensor) -> Tensor:
        """``kappa_b`` for each owner, float64, differentiable."""
        a = self.prior.coefficients(psi)
        owners = torch.tensor(self.owners)
        parts = []
        for owner in owners.unique():
            chosen = owners == owner
            # Without a floor, differences that cannot vary would make the gradient of the root NaN.
            variance = (a[chosen] @ self.variances[chosen]).clamp(min=1e-60)
            parts.append(mean_absolute(self.means, variance.sqrt()).sum())
        return torch.stack(parts)

    def __call__(self, psi: Tensor) -> Tensor:
        if not psi.requires_grad:
            psi = psi.detach().requires_grad_(True)
        kappa = self.strength * self.expected_variation(psi)
        owned = torch.tensor(sorted(set(self.owners)))
        slopes = torch.stack([torch.autograd.grad(k, psi, create_graph=True)[0][o] for k, o in zip(kappa, owned, strict=True)])
        return -kappa.sum() + slopes.abs().clamp(min=1e-300).log().sum()


def mean_absolute(mean: Tensor, sd: Tensor) -> Tensor:
    """E|z| of ``z ~ N(mean, sd^2)``, elementwise."""
    sd = sd.clamp(min=1e-150)
    ratio = mean / sd
    return sd * math.sqrt(2 / math.pi) * torch.exp(-0.5 * ratio**2) + mean * torch.erf(ratio / math.sqrt(2))
