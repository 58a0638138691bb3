"""Linearised Laplace for any torch module: tangent model, prior, evidence, posterior. It knows nothing of tomography.

``linearise`` a network, choose a prior, ``maximise_evidence``, take the ``posterior``.
"""

from ctuq.laplace.evidence.exact import Evidence, expected_floor, maximise_dense
from ctuq.laplace.fit import Fit, maximise_evidence
from ctuq.laplace.posterior import Classes, Posterior, posterior
from ctuq.laplace.priors.blocks import by_module
from ctuq.laplace.priors.diagonal import DiagonalPrior, FilterProcess, blocks_prior, g_prior, isotropic, layerwise
from ctuq.laplace.priors.variation import VariationPrior
from ctuq.laplace.system.problem import Point
from ctuq.laplace.tangent.likelihoods import Bernoulli, Categorical, Gaussian
from ctuq.laplace.tangent.metric import Metric
from ctuq.laplace.tangent.model import LinearModel, linearise
from ctuq.linops.gaussian import Conditioning, DensePosterior, PathwisePosterior, log_evidence
from ctuq.linops.gram import gram

__all__ = [
    "Bernoulli",
    "Categorical",
    "Classes",
    "Conditioning",
    "DensePosterior",
    "DiagonalPrior",
    "Evidence",
    "FilterProcess",
    "Fit",
    "Gaussian",
    "LinearModel",
    "Metric",
    "PathwisePosterior",
    "Point",
    "Posterior",
    "VariationPrior",
    "blocks_prior",
    "by_module",
    "expected_floor",
    "g_prior",
    "gram",
    "isotropic",
    "layerwise",
    "linearise",
    "log_evidence",
    "maximise_dense",
    "maximise_evidence",
    "posterior",
]
