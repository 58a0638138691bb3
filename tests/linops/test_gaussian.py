import pytest
import torch
from scipy.stats import multivariate_normal

from ctuq.errors import CtuqError
from ctuq.linops.gaussian import explained, log_evidence, root_given, stable_cholesky, whitened_factor


def test_log_evidence_is_the_normal_density(rng):
    root = torch.randn(9, 12, generator=rng, dtype=torch.float64)
    t = torch.randn(9, generator=rng, dtype=torch.float64)
    K = root @ root.T
    value, L, a = log_evidence(K, t)
    assert value == pytest.approx(multivariate_normal.logpdf(t.numpy(), cov=K.numpy()), rel=1e-10)
    torch.testing.assert_close(L @ L.T, K)
    torch.testing.assert_close(K @ a, t)


def test_covariance_that_is_not_positive_definite_is_refused():
    K = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    with pytest.raises(CtuqError, match="not positive definite"):
        log_evidence(K, torch.ones(2, dtype=torch.float64))


def test_semi_definite_covariance_has_a_factor(rng):
    root = torch.randn(8, 3, generator=rng, dtype=torch.float64)
    L = stable_cholesky(root @ root.T)
    torch.testing.assert_close(L @ L.T, root @ root.T)


def test_indefinite_covariance_is_refused():
    with pytest.raises(CtuqError, match="indefinite"):
        stable_cholesky(torch.diag(torch.tensor([1.0, -1e-3], dtype=torch.float64)))


def test_a_gaussian_given_data_by_a_root_and_by_what_data_tell(rng):
    root, H = (torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in ((6, 6), (4, 6)))
    C, eye = root @ root.T, torch.eye(6, dtype=torch.float64)
    P, L = torch.linalg.inv(torch.linalg.inv(C) + H.T @ H), torch.linalg.cholesky(C)
    found = root_given(L, torch.linalg.cholesky(eye + L.T @ H.T @ H @ L))
    torch.testing.assert_close(found @ found.T, P)
    size = torch.rand(2, 4, generator=rng, dtype=torch.float64)
    factors = whitened_factor((H @ C @ H.T).expand(2, 4, 4), size)
    for factor, scale in zip(factors, size, strict=True):
        given = C - torch.linalg.inv(torch.linalg.inv(C) + H.T @ torch.diag(scale.square()) @ H)
        torch.testing.assert_close(explained(factor, scale[:, None] * H @ C), given.diagonal())
