import numpy as np
import pytest
import scipy.sparse as sp
import torch

from ctuq.linops.local import LocalCovariance, localised
from ctuq.linops.sparse import SparseRows

SHAPE, D = (6, 7), 42
DOUBLE = torch.float64


def correlated(n, rng, shape=SHAPE):
    """Draws of an image whose neighbours are alike, and whose columns differ in size."""
    z = torch.randn(n, shape[0] + 1, shape[1] + 1, generator=rng, dtype=DOUBLE)
    mixed = z[:, 1:, 1:] + 0.5 * z[:, :-1, 1:] - 0.4 * z[:, 1:, :-1]
    return (mixed * torch.linspace(0.5, 2, shape[1], dtype=DOUBLE)).flatten(1)


def truth():
    """Their covariance: the rows of the linear map squared."""
    size = (SHAPE[0] + 1) * (SHAPE[1] + 1)
    eye = torch.eye(size, dtype=DOUBLE).reshape(size, SHAPE[0] + 1, SHAPE[1] + 1)
    rows = (eye[:, 1:, 1:] + 0.5 * eye[:, :-1, 1:] - 0.4 * eye[:, 1:, :-1]) * torch.linspace(0.5, 2, SHAPE[1], dtype=DOUBLE)
    return rows.flatten(1).T @ rows.flatten(1)


def some(radius, rng, n=30, own=0.0):
    return localised(correlated(n, rng), SHAPE, radius).scaled(1.7).plus(own * torch.rand(D, generator=rng, dtype=DOUBLE))


def matrix(rng):
    M = sp.random_array((9, D), density=0.3, rng=np.random.default_rng(0), format="csr")
    return SparseRows(M), torch.from_numpy(M.toarray())


@pytest.mark.parametrize("radius", [0, 1, 2])
@pytest.mark.parametrize("n", [2, 30])
def test_it_is_positive_semi_definite_with_the_draws_variances_and_nothing_far_away(radius, n, rng):
    draws = correlated(n, rng)
    V = localised(draws, SHAPE, radius).matrix()
    torch.testing.assert_close(V, V.T)
    assert float(torch.linalg.eigvalsh(V).min()) > -1e-12 * float(V.max())
    torch.testing.assert_close(V.diagonal(), draws.square().mean(0))
    y, x = np.divmod(np.arange(D), SHAPE[1])
    far = np.maximum(np.abs(y[:, None] - y), np.abs(x[:, None] - x)) > 2 * radius
    assert far.any() and not V[torch.from_numpy(far)].any()
    assert radius == 0 or V[0, 1] != 0


def test_it_comes_nearer_to_the_true_covariance_than_independent_pixels_and_than_the_draws(rng):
    draws, exact = correlated(100, rng), truth()
    miss = {radius: float((localised(draws, SHAPE, radius).matrix() - exact).norm()) for radius in (0, 2)}
    assert miss[2] < 0.6 * float((draws.T @ draws / 100 - exact).norm())
    assert miss[2] < 0.5 * miss[0]


def test_of_many_draws_it_is_the_tapered_covariance(rng):
    found, exact = localised(correlated(20000, rng), SHAPE, 2).matrix(), truth()
    y, x = torch.arange(D) // SHAPE[1], torch.arange(D) % SHAPE[1]
    beside = (y[:, None] == y) & ((x[:, None] - x).abs() == 1)
    ratio = float((found[beside] * exact[beside]).sum() / exact[beside].square().sum())
    # Gaspari and Cohn's taper at an eighth of its reach is 0.91.
    assert ratio == pytest.approx(0.91, abs=0.04)


def test_radius_zero_is_the_diagonal(rng):
    draws = correlated(20, rng)
    V, variance = localised(draws, SHAPE, 0), draws.square().mean(0)
    x = torch.randn(3, D, generator=rng, dtype=DOUBLE)
    assert V.root is None
    assert torch.equal(V.times(x), variance * x) and torch.equal(V.spread(x), variance.sqrt() * x)
    rows, _ = matrix(rng)
    assert torch.equal(V.gram(rows), rows.gram(variance)) and torch.equal(V.squares(rows), rows.squares(variance))


@pytest.mark.parametrize(("radius", "own"), [(0, 1.0), (2, 0.0), (2, 1.0)])
def test_products_are_those_of_the_matrix(radius, own, rng):
    V, (rows, M) = some(radius, rng, own=own), matrix(rng)
    dense, x = V.matrix(), torch.randn(4, D, generator=rng, dtype=DOUBLE)
    torch.testing.assert_close(V.times(x), x @ dense)
    torch.testing.assert_close(V.fast(x.float()), (x @ dense).float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(V.diagonal, dense.diagonal())
    torch.testing.assert_close(torch.from_numpy(V.sparse.toarray()), dense)
    torch.testing.assert_close(V.gram(rows), M @ dense @ M.T)
    torch.testing.assert_close(V.squares(rows), (M @ dense @ M.T).diagonal())
    torch.testing.assert_close(V.columns(rows)(3, 11), dense[3:11] @ M.T)
    S = V.spread(torch.eye(D, dtype=DOUBLE)).T
    torch.testing.assert_close(S @ S.T, dense)
    torch.testing.assert_close(V.spread_transposed(x), x @ S)
    torch.testing.assert_close(V.between(dense.clone()), S.T @ dense @ S)
    first, second = torch.arange(0, 20), torch.arange(20, 40)
    expected = dense[first, first] + dense[second, second] - 2 * dense[first, second]
    torch.testing.assert_close(V.of_differences(first, second), expected)
    torch.testing.assert_close(LocalCovariance.of_arrays(V.arrays()).matrix(), dense)


@pytest.mark.parametrize(("radius", "own"), [(0, 1.0), (2, 0.0), (2, 1.0)])
def test_draws_have_its_covariance(radius, own, rng):
    V, n = some(radius, rng, own=own), 4000
    z, dense = V.draws(n, rng=rng), V.matrix()
    miss = (z.T @ z / n - dense).square().sum() / ((dense.square().sum() + dense.trace() ** 2) / n)
    assert 1 / 2 < float(miss) < 2


def test_pixels_without_variance_stay_without(rng):
    draws = correlated(30, rng)
    draws[:, [0, 9, 41]] = 0
    V = localised(draws, SHAPE, 2).matrix()
    assert not V[[0, 9, 41]].any() and V.isfinite().all()
    assert not localised(torch.zeros(5, D), SHAPE, 2).matrix().any()


def test_an_image_smaller_than_a_neighbourhood_has_one_too(rng):
    V = localised(correlated(30, rng, (2, 3)), (2, 3), 2)
    assert float(torch.linalg.eigvalsh(V.matrix()).min()) > 0


def test_it_lives_on_the_device_of_its_draws(gpu, rng):
    V = localised(correlated(10, rng).to(gpu), SHAPE, 2).plus(torch.ones(D, dtype=DOUBLE, device=gpu))
    x = torch.randn(2, D, generator=rng, dtype=DOUBLE).to(gpu)
    assert V.times(x).device == gpu and V.draws(2, rng=rng).device == gpu and V.spread(x).device == gpu
    assert V.cpu().own.device.type == "cpu"
    torch.testing.assert_close(V.times(x).cpu(), V.cpu().times(x.cpu()))
