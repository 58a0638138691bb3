"""Lazy linear algebra on batches of torch tensors: operators, Jacobians, solvers, preconditioners and estimators."""

from ctuq.linops.estimate import Estimate, diagonal, log_det, trace
from ctuq.linops.jacobian.network import Jacobian, jacobian_of
from ctuq.linops.operator import LinearOperator, Space
from ctuq.linops.precondition import nystrom, pivoted_cholesky
from ctuq.linops.solve import CG, Cholesky
from ctuq.linops.stochastic import sdd, sgd

__all__ = [
    "CG",
    "Cholesky",
    "Estimate",
    "Jacobian",
    "LinearOperator",
    "Space",
    "diagonal",
    "jacobian_of",
    "log_det",
    "nystrom",
    "pivoted_cholesky",
    "sdd",
    "sgd",
    "trace",
]
