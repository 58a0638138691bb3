"""Gaussian process regression: kernels, prior draws, solvers, inducing points, hyperparameters, Thompson sampling."""

from ctuq.gp.choice import choose
from ctuq.gp.descent import BlockProjections, DualDescent, PrimalDescent
from ctuq.gp.exact import ConjugateGradients, Direct
from ctuq.gp.features import random_features
from ctuq.gp.hyperparameters import Learned, exact_evidence, maximise_exact, maximise_on_subsets
from ctuq.gp.inducing import InducingPosterior, condition_inducing, descend_inducing
from ctuq.gp.kernels import RBF, Kernel, Matern12, Matern32, Matern52, Stationary, Tanimoto
from ctuq.gp.operator import KernelOperator
from ctuq.gp.paths import PriorPaths, SamplePaths, prior_paths
from ctuq.gp.pathwise import Pathwise, maximise_pathwise
from ctuq.gp.pivots import kernel_pivots
from ctuq.gp.regression import GaussianProcess, GaussianProcessPosterior
from ctuq.gp.thompson import Box, Campaign, Search, drawer, maximise, thompson

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
    "kernel_pivots",
    "maximise",
    "maximise_exact",
    "maximise_on_subsets",
    "maximise_pathwise",
    "prior_paths",
    "random_features",
    "thompson",
]
