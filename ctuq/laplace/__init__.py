"""Linearised Laplace for any torch module: tangent model, prior, evidence, posterior. It knows nothing of tomography.

``linearise`` a network, choose a prior, ``maximise_evidence``, take the ``posterior``.
"""

from ctuq.laplace.blocks import by_module, unet_blocks
from ctuq.laplace.evidence import Evidence, expected_floor, log_evidence, maximise_dense
from ctuq.laplace.fit import Fit, maximise_evidence
from ctuq.laplace.gram import gram
from ctuq.laplace.likelihoods import Bernoulli, Categorical, Gaussian
from ctuq.laplace.metric import Metric
from ctuq.laplace.model import LinearModel, linearise
from ctuq.laplace.posterior import Conditioning, DensePosterior, PathwisePosterior
from ctuq.laplace.priors import DiagonalPrior, FilterProcess, blocks_prior, g_prior, isotropic, layerwise
from ctuq.laplace.problem import Point
from ctuq.laplace.tangent_posterior import Classes, Posterior, posterior
from ctuq.laplace.variation import VariationPrior

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
    "unet_blocks",
]
