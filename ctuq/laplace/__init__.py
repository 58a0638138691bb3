"""Linearised Laplace for Gaussian-linear models: priors, evidence, posterior. It knows nothing of tomography."""

from ctuq.laplace.evidence import Evidence, expected_floor, log_evidence, maximise_dense
from ctuq.laplace.gram import gram
from ctuq.laplace.posterior import Conditioning, DensePosterior, PathwisePosterior
from ctuq.laplace.priors import DiagonalPrior, FilterProcess, g_prior, isotropic, layerwise
from ctuq.laplace.variation import VariationPrior

__all__ = [
    "Conditioning",
    "DensePosterior",
    "DiagonalPrior",
    "Evidence",
    "FilterProcess",
    "PathwisePosterior",
    "VariationPrior",
    "expected_floor",
    "g_prior",
    "gram",
    "isotropic",
    "layerwise",
    "log_evidence",
    "maximise_dense",
]
