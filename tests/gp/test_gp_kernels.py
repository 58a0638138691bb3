import math

import pytest
import torch
from scipy.special import gamma, kv

from ctuq.errors import InputError
from ctuq.gp import RBF, Matern12, Matern32, Matern52, Tanimoto

STATIONARY = [RBF, Matern12, Matern32, Matern52]
SCALES = [0.5, 2.0, 1.1]


def points(rng, n=9):
    return torch.randn(n, 3, generator=rng, dtype=torch.float64)


def distance(a, b):
    return ((a[:, None] - b[None]) / torch.tensor(SCALES, dtype=torch.float64)).square().sum(2).sqrt()


@pytest.mark.parametrize("kind, nu", [(Matern12, 0.5), (Matern32, 1.5), (Matern52, 2.5)])
def test_matern_kernels_are_the_bessel_form_at_half_integers(kind, nu, rng):
    a, b = points(rng), points(rng)
    s = math.sqrt(2 * nu) * distance(a, b).numpy()
    truth = 1.7 * 2 ** (1 - nu) / gamma(nu) * s**nu * kv(nu, s)
    torch.testing.assert_close(kind.of(1.7, SCALES)(a, b), torch.tensor(truth), rtol=1e-12, atol=1e-14)


def test_rbf_is_the_gaussian_of_the_scaled_distance(rng):
    a, b = points(rng), points(rng)
    torch.testing.assert_close(RBF.of(1.7, SCALES)(a, b), 1.7 * torch.exp(-(distance(a, b) ** 2) / 2), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", STATIONARY)
def test_close_points_far_from_the_origin_keep_their_digits(kind, rng):
    x = points(rng) * 1e-3
    torch.testing.assert_close(kind.of(1.0, SCALES)(x + 1e3, x + 1e3), kind.of(1.0, SCALES)(x, x), rtol=1e-5, atol=0)
    single = kind.of(1.0, SCALES)(x, x, dtype=torch.float32)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), kind.of(1.0, SCALES)(x, x), rtol=3e-7, atol=0)


@pytest.mark.parametrize("kind", STATIONARY)
def test_covariance_matrices_are_positive_with_the_variance_on_the_diagonal(kind, rng):
    x = points(rng, 30)
    kernel = kind.of(0.4, SCALES)
    K = kernel(x, x)
    assert torch.linalg.eigvalsh(K)[0] > -1e-12
    torch.testing.assert_close(K.diagonal(), kernel.diagonal(x), rtol=1e-7, atol=0)
    torch.testing.assert_close(kernel.diagonal(x), torch.full((30,), 0.4, dtype=torch.float64))


@pytest.mark.parametrize("kind", STATIONARY)
def test_derivatives_in_hyperparameters_and_inputs_are_right(kind, rng):
    a, b = points(rng, 3).requires_grad_(), points(rng, 4)
    psi = kind.of(1.7, SCALES).psi.requires_grad_()
    assert torch.autograd.gradcheck(lambda psi, a: kind.of(1.0, SCALES).at(psi)(a, b), (psi, a))


@pytest.mark.parametrize("kind", STATIONARY)
def test_derivatives_are_finite_where_points_coincide(kind, rng):
    x = points(rng, 3).requires_grad_()
    kind.of(1.0, SCALES)(x, x.detach()).sum().backward()
    assert x.grad.isfinite().all()


def test_log_hyperparameters_give_back_the_kernel():
    kernel = Matern52.of(0.3, SCALES)
    again = kernel.at(kernel.psi)
    torch.testing.assert_close(again.psi, kernel.psi)
    assert len(kernel.names) == len(kernel.psi) == 4
    torch.testing.assert_close(kernel.psi.exp()[1:], torch.tensor(SCALES, dtype=torch.float64))


def test_tanimoto_is_shared_bits_over_all_bits(rng):
    a = torch.rand(6, 40, generator=rng).lt(0.3).double()
    b = torch.rand(5, 40, generator=rng).lt(0.3).double()
    truth = [[float((p * q).sum() / (p + q).clamp(max=1).sum()) for q in b] for p in a]
    torch.testing.assert_close(Tanimoto.of(2.0)(a, b), 2 * torch.tensor(truth, dtype=torch.float64))


def test_tanimoto_of_two_empty_fingerprints_is_one():
    zero, one = torch.zeros(1, 5), torch.ones(1, 5)
    assert Tanimoto.of(1.0)(zero, zero) == 1
    assert Tanimoto.of(1.0)(zero, one) == 0


def test_one_lengthscale_is_repeated_for_all_inputs():
    assert RBF.of(1.0, 0.5, 4).lengthscales.tolist() == [0.5] * 4


@pytest.mark.parametrize("variance, scales", [(0.0, [1.0]), (1.0, [1.0, -2.0]), (math.inf, [1.0])])
def test_numbers_that_are_no_scale_are_refused(variance, scales):
    with pytest.raises(InputError, match="positive, finite"):
        RBF.of(variance, scales)


def test_inputs_that_do_not_fit_are_refused(kernel):
    with pytest.raises(InputError, match="3 columns and the kernel 2 lengthscales"):
        kernel(torch.zeros(4, 3), torch.zeros(4, 3))
    with pytest.raises(InputError, match=r"shape \(n, d\), not \(4,\)"):
        kernel(torch.zeros(4), torch.zeros(4, 2))
