"""Gaussian process regression: kernels, prior draws, solvers, inducing points, hyperparameters, Thompson sampling."""

from ctuq.laplace.gp.choice import choose
from ctuq.laplace.gp.descent import BlockProjections, DualDescent, PrimalDescent
from ctuq.laplace.gp.exact import ConjugateGradients, Direct
from ctuq.laplace.gp.features import random_features
from ctuq.laplace.gp.hyperparameters import Learned, exact_evidence, maximise_exact, maximise_on_subsets
from ctuq.laplace.gp.inducing import InducingPosterior, condition_inducing, descend_inducing
from ctuq.laplace.gp.kernels import RBF, Kernel, Matern12, Matern32, Matern52, Stationary, Tanimoto
from ctuq.laplace.gp.operator import KernelOperator
from ctuq.laplace.gp.paths import PriorPaths, SamplePaths, prior_paths
from ctuq.laplace.gp.pathwise import Pathwise, maximise_pathwise
from ctuq.laplace.gp.pivots import pivoted_cholesky
from ctuq.laplace.gp.regression import GaussianProcess, GaussianProcessPosterior
from ctuq.laplace.gp.thompson import Box, Campaign, Search, drawer, maximise, thompson

__all__ = [
    "RBF",
    "BlockProjections",
    "Box",
    "Campaign",
    "ConjugateGradients",
    "Direct",
    "DualDescent",
    "GaussianProcess",
    "GaussianProcessPosterior",
    "InducingPosterior",
    "Kernel",
    "KernelOperator",
    "Learned",
    "Matern12",
    "Matern32",
    "Matern52",
    "Pathwise",
    "PrimalDescent",
    "PriorPaths",
    "SamplePaths",
    "Search",
    "Stationary",
    "Tanimoto",
    "choose",
    "condition_inducing",
    "descend_inducing",
    "drawer",
    "exact_evidence",
    "maximise",
    "maximise_exact",
    "maximise_on_subsets",
    "maximise_pathwise",
    "pivoted_cholesky",
    "prior_paths",
    "random_features",
    "thompson",
]
