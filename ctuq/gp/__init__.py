"""Gaussian process regression: kernels, prior draws, solvers, inducing points, hyperparameters, Thompson sampling."""

from ctuq.gp.descent import BlockProjections, DualDescent, PrimalDescent
from ctuq.gp.exact import ConjugateGradients, Direct
from ctuq.gp.hyperparameters import maximise_exact, maximise_on_subsets
from ctuq.gp.inducing import InducingPosterior, condition_inducing
from ctuq.gp.kernels import RBF, Kernel, Matern12, Matern32, Matern52, Stationary, Tanimoto
from ctuq.gp.paths import SamplePaths
from ctuq.gp.pathwise import Pathwise, maximise_pathwise
from ctuq.gp.regression import GaussianProcess, GaussianProcessPosterior
from ctuq.gp.thompson import Campaign, Domain, Search, thompson

__all__ = [
    "RBF",
    "BlockProjections",
    "Campaign",
    "ConjugateGradients",
    "Direct",
    "Domain",
    "DualDescent",
    "GaussianProcess",
    "GaussianProcessPosterior",
    "InducingPosterior",
    "Kernel",
    "Matern12",
    "Matern32",
    "Matern52",
    "Pathwise",
    "PrimalDescent",
    "SamplePaths",
    "Search",
    "Stationary",
    "Tanimoto",
    "condition_inducing",
    "maximise_exact",
    "maximise_on_subsets",
    "maximise_pathwise",
    "thompson",
]
