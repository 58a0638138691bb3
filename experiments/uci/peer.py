"""The same Gaussian process in gpytorch: exact regression by conjugate gradients, its own recipe for large sets."""

import torch
from torch import Tensor

from ctuq import CtuqError
from ctuq.gp import GaussianProcess, Matern32
from ctuq.gp.regression import product_type
from experiments.uci.sets import Split

RANK, STEPS = 100, 1000


def gpytorch_cg(process: GaussianProcess, data: Split, deviations: int, tolerance: float) -> tuple[Tensor, Tensor, str]:
    """Mean at all test points and deviation at the first ``deviations``, both float64; and the settings in words.

    Conjugate gradients to a relative ``tolerance`` (gpytorch's default is 0.01) with its pivoted Cholesky preconditioner of
    rank 100, in the type in which our own products run.

    Raises
    ------
    CtuqError
        If gpytorch is not installed, or the kernel is not Matern 3/2.
    """
    try:
        import gpytorch
    except ImportError:
        raise CtuqError("The comparison needs gpytorch: pip install gpytorch, or leave 'gpytorch' out of --solvers.") from None
    if not isinstance(process.kernel, Matern32):
        raise CtuqError(f"The comparison is written for a Matern 3/2 kernel, not {type(process.kernel).__name__}.")
    dtype = product_type(process.kernel, process.sigma2, data.x)

    class Exact(gpytorch.models.ExactGP):
        def __init__(self, x: Tensor, y: Tensor, likelihood: gpytorch.likelihoods.Likelihood):
            super().__init__(x, y, likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            base = gpytorch.kernels.MaternKernel(nu=1.5, ard_num_dims=x.shape[1])
            self.covar_module = gpytorch.kernels.ScaleKernel(base)

        def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    floor = gpytorch.constraints.GreaterThan(process.sigma2 / 10)
    likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=floor)
    model = Exact(data.x.to(dtype), data.y.to(dtype), likelihood).to(dtype)
    model.covar_module.outputscale = process.kernel.variance.to(dtype)
    model.covar_module.base_kernel.lengthscale = process.kernel.lengthscales.to(dtype)
    likelihood.noise = process.sigma2
    model.eval()
    likelihood.eval()
    settings = gpytorch.settings
    x = data.x_test.to(dtype)
    with (
        torch.no_grad(),
        settings.max_cholesky_size(0),
        settings.eval_cg_tolerance(tolerance),
        settings.max_cg_iterations(STEPS),
        settings.max_preconditioner_size(RANK),
        settings.min_preconditioning_size(0),
    ):
        with settings.skip_posterior_variances():
            mean = model(x).mean
        std = likelihood(model(x[:deviations])).variance.sqrt()
    note = f"gpytorch {gpytorch.__version__}, tolerance {tolerance:g}, rank {RANK}, {dtype}"
    return mean.double(), std.double(), note
