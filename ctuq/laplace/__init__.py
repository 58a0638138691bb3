"""Linearised Laplace for any torch module: tangent model, prior, evidence, posterior. It knows nothing of tomography.

``linearise`` a network, choose a prior, ``maximise_evidence``, take the ``posterior``.
"""

from ctuq.laplace.fit import Fit, maximise_evidence
from ctuq.laplace.posterior import Classes, Posterior, posterior
from ctuq.laplace.priors.blocks import by_module
from ctuq.laplace.priors.diagonal import DiagonalPrior, FilterProcess, blocks_prior, g_prior, isotropic, layerwise
from ctuq.laplace.priors.variation import VariationPrior
from ctuq.laplace.system.problem import Point
from ctuq.laplace.tangent.likelihoods import Bernoulli, Categorical, Gaussian
from ctuq.laplace.tangent.metric import Metric
from ctuq.laplace.tangent.model import LinearModel, linearise

__all__ = [
    "Bernoulli",
    "Categorical",
    "Classes",
    "DiagonalPrior",
    "FilterProcess",
    "Fit",
    "Gaussian",
    "LinearModel",
    "Metric",
    "Point",
    "Posterior",
    "VariationPrior",
    "blocks_prior",
    "by_module",
    "g_prior",
    "isotropic",
    "layerwise",
    "linearise",
    "maximise_evidence",
    "posterior",
]
