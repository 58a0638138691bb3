import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.stats import multivariate_normal

from ctuq.baselines.pixels import PixelMatern
from ctuq.baselines.variances import learn_variance
from ctuq.design import Edges, Every, Isotropic, Matern, Measurements, learner
from ctuq.design.algebra.covariance import FactorCovariance, Hold
from ctuq.design.models.edges import EdgePrecision
from ctuq.design.models.evidence import learn_variances
from ctuq.errors import InputError
from ctuq.tomo import ParallelBeam, VolumeGrid, ray_transform
from ctuq.tomo.phantoms import rectangles
from ctuq.tomo.simulate import RelativeNoise, simulate

SIZE = 16


@pytest.fixture(scope="module")
def rays():
    """Twelve views of 16 x 16 pixels."""
    geometry = ParallelBeam(angles=np.arange(12) * np.pi / 12, columns=23, pixel=1.0)
    return ray_transform(VolumeGrid((SIZE, SIZE), 1.0), geometry, backend="matrix")


def measure(A, image, views, noise=0.05, weights=None):
    """Measurements of an image (y, x) with noise of this standard deviation at weight 1."""
    rng = torch.Generator().manual_seed(3)
    y = A(image.float())[torch.as_tensor(views)]
    weights = torch.ones_like(y) if weights is None else weights
    y = y + noise * torch.randn(y.shape, generator=rng) / weights.clamp(min=1e-6).sqrt()
    return Measurements(A, np.asarray(views), y, weights)


def draw(covariance, rng):
    root = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(len(covariance), dtype=torch.float64))
    return (root @ torch.randn(len(root), generator=rng, dtype=torch.float64)).reshape(SIZE, SIZE)


def density(K, s, sigma2, t, noise):
    return multivariate_normal.logpdf(t.numpy(), cov=s * K.numpy() + sigma2 * np.diag(noise.numpy()))


def test_one_variance_has_the_evidence_of_the_normal_density_and_the_engines_maximum(rng):
    root = torch.randn(30, 40, generator=rng, dtype=torch.float64)
    K, noise = root @ root.T, 0.5 + torch.rand(30, generator=rng, dtype=torch.float64)
    t = root @ torch.randn(40, generator=rng, dtype=torch.float64)
    t = t + 2 * noise.sqrt() * torch.randn(30, generator=rng, dtype=torch.float64)
    found = learn_variance(K, t, noise)
    assert found.value == pytest.approx(density(K, found.signal, found.noise, t, noise), rel=1e-10)
    engine = learn_variances([K], ("variance",), t, noise)
    assert found.value >= engine.value - 1e-9
    assert found.signal == pytest.approx(float(engine.psi[0].exp()), rel=0.02)
    assert found.noise == pytest.approx(engine.sigma2, rel=0.02)
    for a, b in ((1.1, 1.0), (0.9, 1.0), (1.0, 1.1), (1.0, 0.9)):
        assert density(K, a * found.signal, b * found.noise, t, noise) < found.value


def test_scale_of_the_component_is_taken_up_by_its_variance(rng):
    root = torch.randn(20, 20, generator=rng, dtype=torch.float64)
    t, ones = torch.randn(20, generator=rng, dtype=torch.float64), torch.ones(20, dtype=torch.float64)
    one, other = (learn_variance(c * root @ root.T, t, ones) for c in (1.0, 1e6))
    assert other.signal == pytest.approx(one.signal / 1e6, rel=1e-4)
    assert other.noise == pytest.approx(one.noise, rel=1e-4)


@pytest.mark.parametrize("lengthscale", [0.7, 4.0, 50.0])
def test_fast_product_is_that_of_the_dense_kernel(lengthscale, rng):
    kernel = PixelMatern((5, 8), lengthscale)
    points = np.stack(np.meshgrid(np.arange(5), np.arange(8), indexing="ij"), -1).reshape(-1, 2)
    exact = np.exp(-np.linalg.norm(points[:, None] - points[None], axis=-1) / lengthscale)
    np.testing.assert_allclose(kernel.dense().numpy(), exact, rtol=1e-12)
    x = torch.randn(3, 40, generator=rng, dtype=torch.float64)
    np.testing.assert_allclose(kernel.times(x).numpy(), x.numpy() @ exact, rtol=0, atol=1e-10)


@pytest.mark.parametrize("lengthscale", [1.5, 5.0])
def test_evidence_finds_the_lengthscale_that_drew_the_image(rays, lengthscale, rng):
    found = []
    for _ in range(3):
        image = draw(0.3 * PixelMatern((SIZE, SIZE), lengthscale).dense(), rng)
        model = Matern()(measure(rays, image, np.arange(12)))
        found.append(np.log(model.hyperparameters["lengthscale (pixels)"] / lengthscale))
        assert model.sigma2 == pytest.approx(0.05**2, rel=0.6)
    assert abs(np.mean(found)) < 0.4


def test_matern_covariance_is_the_kernel_at_its_hyperparameters(rays, rng):
    model = Matern()(measure(rays, draw(PixelMatern((SIZE, SIZE), 3.0).dense(), rng), np.arange(12)))
    values = model.hyperparameters
    kernel = PixelMatern((SIZE, SIZE), values["lengthscale (pixels)"]).dense()
    torch.testing.assert_close(model.covariance.matrix, values["variance"] * kernel)


def test_isotropic_variances_are_those_that_drew_the_image(rays, rng):
    image = 0.5 * torch.randn(SIZE, SIZE, generator=rng)
    model = Isotropic()(measure(rays, image, np.arange(12)))
    assert isinstance(model.covariance, FactorCovariance)
    assert model.hyperparameters["variance"] == pytest.approx(0.25, rel=0.3)
    torch.testing.assert_close(model.covariance.diagonal(), torch.full((256,), model.hyperparameters["variance"]).double())


def test_weights_are_part_of_the_evidence(rays, rng):
    image = draw(PixelMatern((SIZE, SIZE), 3.0).dense(), rng)
    weights = torch.full((12, 23), 4.0)
    weights[:, :3] = 0
    model = Matern()(measure(rays, image, np.arange(12), noise=0.4, weights=weights))
    assert model.sigma2 == pytest.approx(0.16, rel=0.5)


def test_edge_precision_is_the_quadratic_form_of_lagged_diffusivity(rng):
    image = torch.rand(4, 5, generator=rng, dtype=torch.float64).numpy()
    precision = EdgePrecision(image, 0.2)
    x = torch.rand(4, 5, generator=rng, dtype=torch.float64).numpy()

    def squares(a):
        padded = np.pad(a, 1)
        down, right = np.diff(padded, axis=0)[:, 1:], np.diff(padded, axis=1)[1:]
        return down**2 + right**2

    energy = (squares(x) / np.sqrt(squares(image) + 0.04)).sum()
    assert x.ravel() @ precision.matrix @ x.ravel() == pytest.approx(energy, rel=1e-12)
    S = precision.inverse()
    np.testing.assert_allclose(S.numpy() @ precision.matrix.toarray(), np.eye(20), atol=1e-10)
    rows = torch.rand(3, 20, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(precision.times(rows), rows @ S)


def test_edges_are_soft_where_the_reconstruction_has_them(rays):
    image = torch.zeros(SIZE, SIZE)
    image[4:12, 4:12] = 1
    model = Edges(softness=(0.03,))(measure(rays, image, np.arange(12)))
    step = torch.zeros(2, SIZE, SIZE, dtype=torch.float64)
    step[0, 8, 3], step[0, 8, 4], step[1, 8, 7], step[1, 8, 8] = -1, 1, -1, 1
    across, inside = (model.covariance.times(step.flatten(1)) * step.flatten(1)).sum(1)
    assert float(across / inside) > 4
    assert model.image.shape == (SIZE, SIZE)


def test_softness_is_chosen_by_evidence(rays):
    image = torch.zeros(SIZE, SIZE)
    image[4:12, 4:12] = 1
    data = measure(rays, image, np.arange(0, 12, 2))
    *_, best = Edges().fit(data)
    alone = [Edges(softness=(s,)).fit(data)[3].value for s in Edges().softness]
    assert best.value == max(alone)


def test_large_images_get_a_factor_of_the_same_covariance(rays, rng):
    data = measure(rays, draw(PixelMatern((SIZE, SIZE), 6.0).dense(), rng), np.arange(12))
    exact = Matern()(data)
    low = Matern(hold=Hold(200, 100))(data)
    assert isinstance(low.covariance, FactorCovariance)
    gap = low.covariance.times(torch.eye(256, dtype=torch.float64)) - exact.covariance.matrix
    assert float(gap.norm() / exact.covariance.matrix.norm()) < 0.02
    assert f"{low.covariance.missed:.1%}" in low.note


def test_thinned_rays_are_spread_over_the_used_ones(rays, rng):
    weights = torch.ones(12, 23)
    weights[0] = 0
    data = measure(rays, torch.zeros(SIZE, SIZE), np.arange(12), weights=weights)
    thin = data.thinned(100)
    assert len(thin.used) == 100 and data.thinned(253) is data
    places = np.flatnonzero(np.isin(data.used, thin.used))
    assert np.diff(places).min() >= 1 and np.diff(places).max() <= 4
    np.testing.assert_array_equal(sp.csr_array(thin.matrix()).toarray(), data.matrix().toarray()[places])
    torch.testing.assert_close(thin.target(), data.target()[places])


def test_thinned_rays_are_not_of_one_column(rays):
    data = measure(rays, torch.zeros(SIZE, SIZE), np.arange(12))
    assert len(data.used) == 12 * 23
    assert len(np.unique(data.thinned(12).used % 23)) == 12


def test_priors_have_names():
    assert isinstance(learner("matern", every=3), Every)
    assert isinstance(learner("edges"), Edges)
    with pytest.raises(InputError, match="no prior 'flat'"):
        learner("flat")


@pytest.mark.parametrize("size", [24, 48])
@pytest.mark.parametrize("learn", [Isotropic(), Matern(), Edges()])
def test_the_noise_of_a_few_pilot_views_is_not_taken_for_the_object(size, learn):
    """The evidence of a Matern process of these views has its maximum at 5e-8 of their noise variance."""
    angles = np.deg2rad([0, 36, 72, 108, 144])
    beam = ParallelBeam(angles=angles, columns=48, pixel=1.25)
    image = 0.03 * rectangles(128, np.random.default_rng(3))
    made = simulate(image, beam, VolumeGrid((32, 32), 1.25), RelativeNoise(0.03), rng=np.random.default_rng(0), finer=4)
    A = ray_transform(VolumeGrid((size, size), 40 / size), beam, backend="matrix")
    y = torch.from_numpy(made.projections.copy())
    sigma2 = (0.03 * float(y.abs().mean())) ** 2
    model = learn(Measurements(A, np.arange(5), y, torch.ones_like(y)))
    assert 0.2 * sigma2 < model.sigma2 < 30 * sigma2


def test_noise_that_is_none_beside_what_rays_show_is_a_quarter_of_that_and_the_variance_is_the_best_beside_it(rays):
    A, rng = rays, torch.Generator().manual_seed(0)
    M = torch.from_numpy(A.matrix.toarray()[:60]).double()
    K, noise = M @ M.T, 0.5 + torch.rand(60, generator=rng, dtype=torch.float64)
    t = torch.linalg.cholesky(2 * K + 0.01 * torch.diag(noise)) @ torch.randn(60, generator=rng, dtype=torch.float64)
    free = learn_variance(K, t, noise)
    assert learn_variance(K, t, noise, shown=500 * free.noise) == free
    held = learn_variance(K, t, noise, shown=2000 * free.noise)
    assert held.noise == pytest.approx(500 * free.noise)
    assert held.value == pytest.approx(density(K, held.signal, held.noise, t, noise), abs=1e-6)
    for times in (0.9, 1.1):
        assert density(K, times * held.signal, held.noise, t, noise) < held.value
        assert density(K, held.signal, 1.1 * held.noise, t, noise) < held.value
