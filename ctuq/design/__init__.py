"""Which angle next: criteria, exact greedy conditioning, priors, strategies, and a designer that is asked and told."""

from ctuq.design.conditioning import Conditioned
from ctuq.design.covariance import Covariance, DenseCovariance, FactorCovariance, low_rank, sampled
from ctuq.design.criteria import A_OPTIMAL, CRITERIA, DIAGONAL_EIG, EIG, ESE, Criterion, box_region
from ctuq.design.rows import ViewRows

__all__ = [
    "A_OPTIMAL",
    "CRITERIA",
    "DIAGONAL_EIG",
    "EIG",
    "ESE",
    "Conditioned",
    "Covariance",
    "Criterion",
    "DenseCovariance",
    "FactorCovariance",
    "ViewRows",
    "box_region",
    "low_rank",
    "sampled",
]
