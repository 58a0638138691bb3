import pytest
import torch

from ctuq.errors import InputError
from ctuq.gp import RBF, Matern12, Matern32, Matern52, Tanimoto
from ctuq.gp.features import random_features
from ctuq.gp.paths import prior_paths

KERNELS = [kind.of(1.5, [0.7, 1.9]) for kind in (RBF, Matern12, Matern32, Matern52)] + [Tanimoto.of(1.5)]


def inputs(kernel, rng, n=6):
    if isinstance(kernel, Tanimoto):
        return torch.rand(n, 12, generator=rng).lt(0.4).double()
    return torch.randn(n, 2, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
def test_products_of_features_are_the_kernel_on_average(kernel, rng):
    x = inputs(kernel, rng)
    draws = torch.stack([p @ p.T for p in (random_features(kernel, x.shape[1], 40, rng=rng)(x) for _ in range(400))])
    z = (draws.mean(0) - kernel(x, x)) / (draws.std(0) / 20 + 1e-12)
    assert z.abs().max() < 4.5


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
def test_their_error_falls_with_the_root_of_their_number(kernel, rng):
    x, K = inputs(kernel, rng), kernel
    few, many = (
        torch.stack(
            [
                (p @ p.T - K(x, x)).square().mean()
                for p in (random_features(K, x.shape[1], count, rng=rng)(x) for _ in range(60))
            ]
        )
        .mean()
        .sqrt()
        for count in (40, 640)
    )
    assert 3 < few / many < 5.4


def test_features_of_a_stationary_kernel_have_its_variance_everywhere(rng):
    kernel = KERNELS[1]
    Phi = random_features(kernel, 2, 10, rng=rng)(inputs(kernel, rng))
    torch.testing.assert_close(Phi.square().sum(1), torch.full((6,), 1.5, dtype=torch.float64))


@pytest.mark.parametrize("kind", [Matern32, Matern52])
def test_deviations_close_to_data_of_little_noise_are_those_of_the_kernel(kind, rng):
    """What such data leave open is rare, high frequencies: millionths of the prior's variance."""
    kernel, noise = kind.of(400.0, 30.0, 4), 1e-6
    x, new = torch.randn(240, 4, generator=rng, dtype=torch.float64).split([200, 40])
    gain = torch.linalg.solve(kernel(x, x) + noise * torch.eye(200, dtype=torch.float64), kernel(x, new)).T
    truth = (kernel(new, new) - gain @ kernel(x, new)).diagonal()
    found = [
        (Phi(new) - gain @ Phi(x)).square().sum(1) for Phi in (random_features(kernel, 4, 2000, rng=rng) for _ in range(8))
    ]
    ratio = (torch.stack(found).mean(0) + noise * gain.square().sum(1)) / truth
    assert truth.max() < 0.01 * kernel.variance
    assert 0.7 < ratio.mean() < 1.4
    assert ratio.min() > 0.4


@pytest.mark.parametrize("kernel", [KERNELS[2], KERNELS[4]], ids=lambda k: type(k).__name__)
def test_prior_draws_have_the_kernel_as_covariance(kernel, rng):
    x = inputs(kernel, rng, 4)
    f = prior_paths(kernel, x.shape[1], 2000, rng=rng, features=50, sets=2000)(x)
    products = f[:, :, None] * f[:, None]
    z = (products.mean(0) - kernel(x, x)) / (products.std(0) / 2000**0.5)
    assert z.abs().max() < 4.5


@pytest.mark.parametrize("sets", [1, 3])
def test_each_draw_at_inputs_of_its_own_is_that_draw(sets, rng):
    kernel = KERNELS[2]
    paths = prior_paths(kernel, 2, 5, rng=rng, features=20, sets=sets)
    x = torch.randn(5, 3, 2, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(paths.each(x), torch.stack([paths(own)[i] for i, own in enumerate(x)]))


def test_draws_move_with_the_lengthscales(rng):
    paths = prior_paths(Matern32.of(1.0, [1.0, 1.0]), 2, 3, rng=rng, features=20)
    moved = paths.at(Matern32.of(4.0, [2.0, 3.0]))
    x = inputs(KERNELS[0], rng)
    torch.testing.assert_close(moved(x), 2 * paths(x / torch.tensor([2.0, 3.0], dtype=torch.float64)))


def test_draws_depend_on_the_generator_alone():
    draws = [
        prior_paths(KERNELS[2], 2, 2, rng=torch.Generator().manual_seed(s), features=20)(torch.ones(1, 2)) for s in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_what_has_no_features_is_refused(rng):
    with pytest.raises(InputError, match="at least 2 random features, not 1"):
        random_features(KERNELS[0], 2, 1, rng=rng)
    with pytest.raises(InputError, match="zeros and ones"):
        random_features(KERNELS[4], 3, 10, rng=rng)(torch.full((1, 3), 2.0))
    with pytest.raises(InputError, match="0 draws"):
        prior_paths(KERNELS[0], 2, 0, rng=rng)
