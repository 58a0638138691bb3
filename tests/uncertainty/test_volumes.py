"""Error bars of volumes by the code of images, against dense algebra on a volume of 6 x 5 x 7 voxels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from images import posterior_covariance, prior_covariance, rays_matrix, some_point

from ctuq.linops.jacobian.network import jacobian_of
from ctuq.recon.unet import UNet, UNetOptions
from ctuq.tomo import VolumeGrid, radians
from ctuq.tomo.rays.rows import FreeRows, ray_rows
from ctuq.tomo.rays.volume import volume_transform
from ctuq.tomo.space import ConeBeam, Parallel3D
from ctuq.uncertainty.calibration import held_out as module
from ctuq.uncertainty.calibration.held_out import spread
from ctuq.uncertainty.calibration.scales import Scales, correlation_time
from ctuq.uncertainty.estimate import estimate
from ctuq.uncertainty.model.left_out import Beside, LeftOut
from ctuq.uncertainty.model.linear import image_model
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.route import NOISE_BY, Route
from ctuq.uncertainty.model.solved import SolvedRays

SHAPE, SCALE, VIEWS = (6, 5, 7), 0.04, 7
HELD = np.array([1, 4])


def cone(rows=8, columns=9, **settings):
    lengths = {"source_to_axis": 30.0, "source_to_detector": 60.0, "pixel": 2.2}
    settings = {"row_offset": 1.0, "detector_offset": 0.4} | lengths | settings
    return ConeBeam(angles=radians(np.arange(VIEWS) * 360 / VIEWS), rows=rows, columns=columns, **settings)


def network(shape=SHAPE, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return jacobian_of(UNet(UNetOptions(channels=(4, 4), skips=(2,), dims=3), rng), torch.rand(1, 1, *shape, generator=rng))


def scanned(geometry, shape=SHAPE, backend="matrix", centre=(0.7, -0.4, 1.2)):
    """A transform, noisy projections of something like a network's image off the axis, their weights, image and Jacobian."""
    rng = torch.Generator().manual_seed(2)
    A = volume_transform(VolumeGrid(shape, 1.0, centre), geometry, backend=backend)
    output, jacobian = network(shape)
    image = SCALE * output.reshape(shape)
    y = A(image * (1 + 0.3 * torch.randn(shape, generator=rng)))
    y = y + 0.01 * torch.randn(y.shape, generator=rng)
    weights = 0.5 + torch.rand(y.shape, generator=rng)
    weights[2, 3], weights[0, 5, 1] = 0, 0
    return A, y, weights, image, jacobian


@pytest.fixture(scope="module")
def scan():
    return scanned(cone())


@pytest.fixture(scope="module")
def model(scan):
    return modelled(*scan)


def modelled(A, y, weights, image, jacobian, rank=20, prior="isotropic"):
    rng = torch.Generator().manual_seed(0)
    return image_model(A, y, weights, image=image, jacobian=jacobian, scale=SCALE, prior=prior, rank=rank, rng=rng)


def close(a, b, tolerance=1e-5):
    return float((a - b).norm()) <= tolerance * float(b.norm())


def way(model, together=False, noise_by="cg", held=HELD):
    unseen = int(np.isin(model.views.numpy(), held).sum())
    m, d = model.features.matrix.shape
    return Route(d, m, m - unseen, 1000, model.factor.rank, True, noise_by, noise_by == "float64", 0, together)


def test_each_ray_belongs_to_its_view_and_rays_without_weight_are_left_out(model, scan):
    used = scan[2].flatten() > 0
    assert model.rays.tolist() == used.nonzero().flatten().tolist()
    views = torch.arange(VIEWS)[None, :, None].expand(scan[1].shape).flatten()
    assert model.views.tolist() == views[used].tolist()


def test_floors_are_white_voxels_and_displaced_edges_in_three_axes(model, scan):
    slopes = sum(torch.from_numpy(g**2) for g in np.gradient(scan[3].double().numpy()))
    found = (
        model.misfit(some_point(model, floors=(0.3, 2.0)).psi).diagonal
        - model.misfit(some_point(model, floors=(0.3, 1e-30)).psi).diagonal
    )
    assert close(found, 2 * slopes.flatten())


@pytest.mark.parametrize("noise_by", NOISE_BY)
@pytest.mark.parametrize("rank", [210, 20])
def test_covariance_of_a_volume_is_the_textbook_formula(rank, noise_by, scan, rng):
    model = modelled(*scan, rank=rank)
    point = some_point(model, floors=(1e-5, 0.05))
    P = posterior_covariance(model, point)
    found = ImagePosterior(SolvedRays.on(model, point, noise_by=noise_by), rng=rng)
    assert close(found.covariance(), P, 1e-4)
    if noise_by == "float64":
        assert close(found.std().flatten(), P.diagonal().sqrt(), 1e-4)


def test_components_of_the_evidence_are_the_rays_prior_covariance(scan):
    model = modelled(*scan, prior="layerwise")
    psi, root = some_point(model).psi, model.precision.sqrt()
    M = rays_matrix(model) * root[:, None]
    K = torch.tensordot(model.prior.coefficients(psi), model.components(), 1)
    assert close(K, M @ prior_covariance(model, psi) @ M.T)


def test_variation_hyperprior_has_the_variances_of_differences_along_every_axis(scan):
    model = modelled(*scan, rank=210)
    J = SCALE * scan[4].dense().double().reshape(210, -1)
    D = torch.cat([J.reshape(*SHAPE, -1).diff(dim=axis).reshape(-1, J.shape[1]) for axis in (2, 1, 0)])
    weights = model.prior.of_weights(some_point(model).psi)
    total = model.factor.prior.coefficients(weights) @ model.prior.variation(model.image, 1.0).variances
    assert close(total, (D * model.factor.prior.covariance(D, weights)).sum(1))


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize(
    "geometry", [cone(), cone(pixel=4.0, rows=4, columns=5), cone(roll=0.1, tilt=0.2)], ids=["cone", "wide", "tilted"]
)
def test_rows_without_a_matrix_are_those_of_the_matrix(backend, geometry, rng):
    if backend == "numba":
        pytest.importorskip("numba")
    A = volume_transform(VolumeGrid(SHAPE, 1.0, (0.7, -0.4, 1.2)), geometry, backend=backend)
    rays = torch.randperm(A.range.size, generator=rng)[:90]
    sizes = 0.5 + torch.rand(90, generator=rng, dtype=torch.float64)
    free, sparse = (ray_rows(A, rays, sizes, free=choice) for choice in (True, False))
    assert isinstance(free, FreeRows) and free.shape == sparse.shape
    d, m = A.domain.size, 90
    x, y = torch.randn(3, d, generator=rng), torch.randn(3, m, generator=rng)
    v, w = (torch.rand(n, generator=rng, dtype=torch.float64) for n in (d, m))
    for name, arguments in (
        ("__call__", (x,)),
        ("transposed", (y,)),
        ("fast", (x,)),
        ("fast_transposed", (y,)),
        ("squares", (v,)),
        ("dense", (3, 17)),
        ("columns", (40, 55)),
        ("gram", (v,)),
        ("column_gram", (w,)),
    ):
        a, b = (getattr(rows, name)(*arguments) for rows in (free, sparse))
        assert a.dtype == b.dtype and close(a, b, 1e-5), name
    left, right = (free(x) * y).sum(), (x * free.transposed(y)).sum()
    assert float((left - right).abs()) < 1e-5 * float(free(x).norm() * y.norm())
    some = torch.tensor([80, 2, 2, 11])
    assert close(free.rows(some).dense(0, 4), sparse.rows(some).dense(0, 4))


def test_a_model_without_a_matrix_is_the_model_with_it(scan, monkeypatch, rng):
    from ctuq.tomo.rays import rows

    model = modelled(*scan)
    monkeypatch.setattr(rows, "_LARGEST", 0)
    free = modelled(*scan)
    assert isinstance(free.features.matrix, FreeRows)
    point = some_point(model, floors=(1e-5, 0.05))
    a, b = (ImagePosterior(SolvedRays.on(m, point, noise_by="cg"), rng=rng).covariance() for m in (free, model))
    assert close(a, b, 1e-3)
    assert close(free.components(), model.components())


@pytest.mark.parametrize("together", [True, False])
def test_held_out_views_of_a_volume_scale_and_correct_it_as_by_the_textbook(together, model, scan, monkeypatch):
    monkeypatch.setattr(module, "learn_scales", lambda *_: Scales(3.0, 0.5, 0.1, 0.1))
    found = estimate(model, scan[1], HELD, way=way(model, together, "float64"))
    point = found.evidence.point
    M, noise = rays_matrix(model), point.sigma2[0] / model.precision
    new = torch.isin(model.views, torch.from_numpy(HELD))
    P = posterior_covariance(model, point, rows=~new)
    residual = scan[1].flatten()[model.rays].double()[new] - M[new] @ model.image.flatten().double()
    total = 3.0 * M[new] @ P @ M[new].T + torch.diag(0.5 * noise[new])
    exact = 3.0 * P @ M[new].T @ torch.linalg.solve(total, residual)
    assert close(found.correction.flatten(), exact, 1e-3)
    raw = torch.from_numpy(found.calibration.predictions[2]).double()
    assert raw.shape == (2, 8, 9)
    variances = (M[new] @ P * M[new]).sum(1) + noise[new]
    used = (scan[2][:, HELD] > 0).transpose(0, 1)
    ours = variances[torch.argsort(model.views[new], stable=True)].sqrt()
    assert close(raw[used], ours, 1e-4)


def test_rays_given_the_others_are_the_same_with_and_without_a_dense_matrix(model):
    point = some_point(model)
    rows = (model.views == 3).nonzero()[:, 0]
    some = torch.tensor([0, 5, 30])
    given = SolvedRays.on(model, point)
    dense, beside = LeftOut.of(given, rows), Beside.of(given, rows, noise_by="cg")
    assert close(beside.variances(some), dense.variances(some), 1e-4)
    assert close(beside.joint(some), dense.joint(some), 1e-4)
    assert close(beside.innovations(some), dense.innovations(some), 1e-3)
    residual = torch.linspace(-1, 2, len(rows), dtype=torch.float64)
    assert close(beside.correction(residual, 2.0, 0.7), dense.correction(residual, 2.0, 0.7), 1e-3)


def test_leave_one_angle_out_predicts_a_few_rays_of_a_view_from_the_other_views(model, scan):
    every = estimate(model, scan[1], HELD, way=way(model, True, "float64"))
    few = estimate(model, scan[1], HELD, way=way(model, False, "float64"))
    # Of two views in place of seven; noise is as large as the signal.
    assert few.leave_one_out["rms_z"] == pytest.approx(every.leave_one_out["rms_z"], rel=0.35)


def test_a_lattice_of_rays_is_spread_over_the_detector_of_every_view(model):
    rows = torch.isin(model.views, torch.from_numpy(HELD)).nonzero()[:, 0]
    some = rows[spread(model, rows, 40)]
    assert 20 <= len(some) <= 40
    for view in HELD:
        rays = model.rays[some[model.views[some] == view]]
        row, column = rays // (VIEWS * 9), rays % 9
        assert len(row.unique()) >= 3 and int(row.max() - row.min()) >= 4
        assert len(column.unique()) >= 3 and int(column.max() - column.min()) >= 4
    assert torch.equal(spread(model, rows, len(rows)), torch.arange(len(rows)))
    assert 1 <= len(spread(model, rows, 1)) <= 2


def test_correlated_rays_count_along_both_axes_of_a_detector():
    rng = np.random.default_rng(0)
    white = rng.standard_normal((3, 40, 40))
    along = (white[:, :, 1:] + white[:, :, :-1]) / 2**0.5
    both = (along[:, 1:] + along[:, :-1]) / 2**0.5
    assert correlation_time(along, 1) < 1.1 < 1.4 < correlation_time(along, 2) < 1.7
    assert correlation_time(both, 1) == pytest.approx(correlation_time(both, 2), rel=0.15)


def test_a_region_s_error_bars_are_those_of_the_whole_volume(model, scan):
    region = (slice(1, 3), slice(0, 5), slice(2, 6))
    for noise_by in ("float64", "cg"):
        whole, part = (
            estimate(model, scan[1], HELD, way=way(model, False, noise_by), region=r).posterior for r in (None, region)
        )
        assert part.std().shape == (2, 5, 4)
        torch.testing.assert_close(part.std(), whole.std()[region], rtol=1e-6 if noise_by == "float64" else 0.05, atol=0)
        a, b = (p.deviations(3, rng=torch.Generator().manual_seed(5)) for p in (part, whole))
        torch.testing.assert_close(a, b[:, *region])


def test_draws_end_where_calibration_is_less_sure_than_they(model, rng, monkeypatch):
    from ctuq.uncertainty.model import posterior

    monkeypatch.setattr(posterior, "images_together", lambda _: 4)
    given = SolvedRays.on(model, some_point(model, floors=(1e-4, 0.5)), noise_by="cg")
    every = ImagePosterior(given, rng=torch.Generator().manual_seed(0))
    every.std()
    few = ImagePosterior(given, rng=torch.Generator().manual_seed(0), tolerance=4 * every._variance[1])
    few.std()
    assert len(few._drawn) < len(every._drawn) == 64
    assert every._variance[1] < few._variance[1] < 4 * every._variance[1]


@pytest.mark.parametrize("shape", [(1, 6, 6), (2, 6, 5)])
def test_flat_volumes_have_error_bars(shape, rng):
    geometry = Parallel3D(angles=radians(np.arange(VIEWS) * 25), rows=6, columns=9, pixel=1.0)
    A, y, weights, image, jacobian = scanned(geometry, shape, "auto", (0.0, 0.0, 0.0))
    model = modelled(A, y, weights, image, jacobian)
    found = estimate(model, y, HELD, way=way(model))
    assert found.posterior.std().shape == shape
    assert bool((found.posterior.std() > 0).all())


def test_model_and_posterior_of_a_volume_live_on_its_device(gpu, scan):
    y, weights = scan[1:3]
    A = volume_transform(scan[0].grid, scan[0].geometry, backend="torch", device=gpu)
    rng = torch.Generator().manual_seed(1)
    net = UNet(UNetOptions(channels=(4, 4), skips=(2,), dims=3), rng).to(gpu)
    output, jacobian = jacobian_of(net, torch.rand(1, 1, *SHAPE, generator=rng).to(gpu))
    there = A, y.to(gpu), weights.to(gpu), SCALE * output.reshape(SHAPE), jacobian
    models = modelled(*scan, rank=6), modelled(*there, rank=6)
    rows = (models[0].views == 3).nonzero()[:, 0]
    found = []
    for model in models:
        point, device = some_point(models[0]), model.image.device
        given = SolvedRays.on(model, point, noise_by="cg")
        posterior = ImagePosterior(given, rng=torch.Generator().manual_seed(0))
        beside = Beside.of(given, rows.to(device), noise_by="cg")
        some = spread(model, rows.to(device), 12)
        found.append((posterior.std(), beside.variances(some), beside.innovations(some)))
    for host, device in zip(*found, strict=True):
        assert device.device == gpu
        assert close(device.cpu(), host, 1e-2)


def test_a_model_of_some_rays_has_their_views(model):
    part = model.part(torch.arange(0, len(model.target), 5))
    assert torch.equal(part.views, model.views[::5])
    assert replace(part, rays=part.rays).shape == model.shape
