"""An image model written out: the prior and posterior covariance of its pixels, by dense algebra in float64."""

import torch

from ctuq.laplace import Point


def some_point(model, floors=(1e-6, 0.05), sigma2=(1e-4,)):
    """Hyperparameters that make the network, both floors and the noise matter."""
    psi = torch.linspace(-1, 1, len(model.prior.names), dtype=torch.float64)
    psi = psi + model.prior.start() * model.prior.is_variance - 4 * model.prior.is_variance
    count = len(model.factor.prior.members)
    psi[count : count + 2] = torch.tensor(floors, dtype=torch.float64).log()
    return Point(psi, torch.tensor(sigma2, dtype=torch.float64))


def rays_matrix(model):
    """The rows of the used rays, (m, d), without their weights."""
    matrix = model.features.matrix
    return matrix.dense(0, matrix.shape[0]) / model.precision.sqrt()[:, None]


def prior_covariance(model, psi):
    """Of the pixels, (d, d)."""
    C, F = model.prior.mixing(psi), model.factor.basis
    S = C if F is None else F.double() @ C @ F.double().T
    return S + model.misfit(psi).matrix()


def posterior_covariance(model, point, rows=None):
    """Of the pixels given the rays (all if None): (S^-1 + M^T R^-1 M)^-1 by the data form, which allows a singular S."""
    M, S = rays_matrix(model), prior_covariance(model, point.psi)
    noise = point.sigma2[0] / model.precision
    if rows is not None:
        M, noise = M[rows], noise[rows]
    K = M @ S @ M.T + torch.diag(noise)
    return S - S @ M.T @ torch.linalg.solve(K, M @ S)
