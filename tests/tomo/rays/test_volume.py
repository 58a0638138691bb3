import pickle

import numpy as np
import pytest
import torch

from ctuq.errors import BackendError, GeometryError, ResourceError
from ctuq.tomo import ConeBeam, FanBeam, FreeBeam, Parallel3D, VolumeGrid, adjoint_mismatch, radians, ray_transform
from ctuq.tomo.rays import compiled, entries, joseph, stack, volume
from ctuq.tomo.rays.joseph import rays_of

has_numba = pytest.mark.skipif(not compiled.has_numba(), reason="numba is not installed")
GRID = VolumeGrid((9, 12, 10), 0.5, (0.3, -0.2, 0.4))
SHARED = dict(angles=radians(np.arange(-20, 340, 50)), rows=8, columns=13, pixel=0.9, row_pixel=0.7)
OFFSETS = dict(detector_offset=0.4, row_offset=-0.3, axis_offset=-0.2)
LENGTHS = dict(source_to_axis=14.0, source_to_detector=30.0)
CONE = ConeBeam(**SHARED, **OFFSETS, **LENGTHS)
GEOMETRIES = {
    "cone": CONE,
    "tilted": ConeBeam(**SHARED, **LENGTHS, roll=0.1, tilt=0.2, yaw=-0.1),
    "helix": CONE.raised(np.linspace(-1, 1, len(CONE.angles))),
    "flipped": FreeBeam(table=CONE.vectors() * np.repeat([1, 1, 1, -1], 3), rows=CONE.rows, columns=CONE.columns),
    "parallel": Parallel3D(**SHARED, **OFFSETS),
    "laminography": Parallel3D(**SHARED, axis_tilt=radians(30)),
    "steep": Parallel3D(**SHARED, axis_tilt=radians(70)),
}
BACKENDS = ["matrix", "torch", pytest.param("numba", marks=has_numba)]
every = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
by_all = pytest.mark.parametrize("backend", BACKENDS)


def ball(grid, centre, radius, finer=6):
    """Share of each voxel inside of a ball."""
    axes = [
        c + ((np.arange(n * finer) + 0.5) / finer - n / 2) * grid.voxel
        for n, c in zip(grid.shape[::-1], grid.centre, strict=True)
    ]
    x, y, z = axes[0] - centre[0], axes[1][::-1] - centre[1], axes[2] - centre[2]
    inside = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= radius**2
    blocks = inside.reshape(*(m for n in grid.shape for m in (n, finer)))
    return torch.from_numpy(blocks.mean(axis=(1, 3, 5))).float()


def chords(geometry, centre, radius, finer=5):
    """Mean over each pixel of the lengths of its rays in a ball, by the distance of each ray to its centre."""
    first, middle, column, row = np.split(geometry.vectors()[:, None, None, :], 4, axis=-1)
    u = (np.arange(geometry.columns * finer) + 0.5) / finer - geometry.columns / 2
    v = (np.arange(geometry.rows * finer) + 0.5) / finer - geometry.rows / 2
    pixels = middle + u[:, None] * column + v[:, None, None] * row
    ray = pixels - first if geometry.diverging else np.broadcast_to(first, pixels.shape)
    away = np.array(centre) - pixels
    distance = np.linalg.norm(np.cross(away, ray), axis=-1) / np.linalg.norm(ray, axis=-1)
    lengths = 2 * np.sqrt(np.maximum(radius**2 - distance**2, 0))
    shape = geometry.n_angles, geometry.rows, finer, geometry.columns, finer
    return lengths.reshape(shape).mean(axis=(2, 4)).swapaxes(0, 1)


@every
@by_all
def test_projections_of_an_off_centre_ball_are_its_chords(geometry, backend):
    # A ball ten voxels wide: Joseph's method is within 4 % of its mean chords in the root mean square, of the whole 2 %.
    grid, centre, radius = VolumeGrid((28, 30, 30), 0.25), (0.6, -0.5, 0.3), 1.3
    found = ray_transform(grid, geometry, backend=backend)(ball(grid, centre, radius)).numpy()
    expected = chords(geometry, centre, radius)
    assert np.linalg.norm(found - expected) < 0.04 * np.linalg.norm(expected)
    assert found.sum() == pytest.approx(expected.sum(), rel=0.02)


@pytest.mark.parametrize("form", [ConeBeam, Parallel3D])
@pytest.mark.parametrize("width", [1.2, 1.4])
def test_one_ray_is_nearer_to_the_mean_chords_of_a_pixel_little_wider_than_a_voxel_than_two(form, width, monkeypatch):
    # Joseph's ray is as blurred as such a pixel already.
    grid, centre, radius = VolumeGrid((20, 20, 20), 0.5), (0.6, -0.5, 0.3), 2.3
    scale, lengths = (LENGTHS["source_to_detector"] / LENGTHS["source_to_axis"], LENGTHS) if form is ConeBeam else (1, {})
    count = int(24 / width)
    geometry = form(angles=SHARED["angles"], rows=count, columns=count, pixel=width * grid.voxel * scale, **lengths)
    solid, expected = ball(grid, centre, radius), chords(geometry, centre, radius)
    misses = []
    for rays in (None, 2):
        for module in (joseph, entries, stack) if rays else ():
            monkeypatch.setattr(module, "joseph_rays", lambda width: 2)
        misses.append(np.linalg.norm(ray_transform(grid, geometry)(solid).numpy() - expected))
    assert misses[0] < 0.85 * misses[1]


@every
@by_all
def test_every_form_gives_the_same_projections_and_its_exact_transpose(geometry, backend):
    A, matrix = (ray_transform(GRID, geometry, backend=each) for each in (backend, "matrix"))
    rng = torch.Generator().manual_seed(0)
    x, y = A.domain.randn(2, rng=rng), A.range.randn(2, rng=rng)
    torch.testing.assert_close(A(x), matrix(x), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(A.T(y), matrix.T(y), rtol=1e-4, atol=2e-5)
    assert adjoint_mismatch(A, rng=rng) < 1e-6


@pytest.mark.parametrize("pitch", [0.5, 0.65, 1.7])
def test_a_stack_of_slices_is_the_same_as_joseph_in_three_dimensions(pitch):
    geometry = Parallel3D(**{**SHARED, "pixel": min(pitch, 0.65), "row_pixel": pitch}, **OFFSETS)
    stack, matrix = (ray_transform(GRID, geometry, backend=each) for each in ("stack", "matrix"))
    x = stack.domain.randn(2, rng=torch.Generator().manual_seed(0))
    torch.testing.assert_close(stack(x), matrix(x), rtol=1e-4, atol=1e-5)
    assert adjoint_mismatch(stack, rng=torch.Generator().manual_seed(1)) < 1e-6


@has_numba
def test_the_separable_kernel_is_taken_for_upright_detectors_only_and_agrees_with_the_other(monkeypatch):
    taken = {name: compiled.separable(rays_of(GRID, geometry)) for name, geometry in GEOMETRIES.items()}
    assert taken == {
        "cone": True,
        "tilted": False,
        "helix": True,
        "flipped": True,
        "parallel": True,
        "laminography": False,
        "steep": False,
    }
    x = torch.randn(GRID.shape, generator=torch.Generator().manual_seed(0))
    separable = ray_transform(GRID, CONE, backend="numba")(x)
    monkeypatch.setattr(compiled, "separable", lambda rays: False)
    torch.testing.assert_close(ray_transform(GRID, CONE, backend="numba")(x), separable, rtol=1e-4, atol=1e-5)


@has_numba
def test_threads_share_the_views_and_change_nothing():
    A = ray_transform(GRID, CONE, backend="numba")
    x = torch.randn(GRID.shape, generator=torch.Generator().manual_seed(0))
    before, one = torch.get_num_threads(), (A(x), A.T(A(x)))
    try:
        torch.set_num_threads(3)
        torch.testing.assert_close(A(x), one[0])
        torch.testing.assert_close(A.T(A(x)), one[1])
    finally:
        torch.set_num_threads(before)


@by_all
def test_a_cone_from_far_away_is_a_parallel_beam(backend):
    far = dict(source_to_axis=1e6, source_to_detector=1e6 + 50)
    x = torch.randn(GRID.shape, generator=torch.Generator().manual_seed(0))
    parallel = ray_transform(GRID, Parallel3D(**SHARED, **OFFSETS), backend=backend)(x)
    cone = ray_transform(GRID, ConeBeam(**SHARED, **OFFSETS, **far), backend=backend)(x)
    torch.testing.assert_close(cone, parallel, rtol=1e-3, atol=1e-3)


def test_the_middle_row_of_a_cone_is_the_fan():
    shared = dict(angles=radians(np.arange(0, 360, 30)), columns=40, pixel=0.8, **LENGTHS, axis_offset=-0.2)
    grid, centre = VolumeGrid((3, 32, 32), 0.25), (0.9, -0.7)
    disc = ball(VolumeGrid((32, 32, 32), 0.25), (*centre, 0.0), 2.5)[16]
    cone = ray_transform(grid, ConeBeam(rows=1, row_pixel=0.1, **shared))(disc.expand(3, -1, -1))
    fan = ray_transform(VolumeGrid(grid.shape[1:], grid.voxel), FanBeam(**shared))(disc)
    assert (cone[0] - fan).norm() < 0.01 * fan.norm()


@by_all
def test_gradients_and_every_transform_of_torch_func_are_the_products_themselves(backend):
    A = ray_transform(VolumeGrid((3, 4, 4), 1.0), CONE.subset([0, 3]), backend=backend)
    x = torch.randn(3, *A.domain.shape, generator=torch.Generator().manual_seed(0))
    y = torch.randn(3, *A.range.shape, generator=torch.Generator().manual_seed(1))
    close = torch.testing.assert_close
    leaf = x.clone().requires_grad_()
    (A(leaf) * y).sum().backward()
    close(leaf.grad, A.T(y))
    close(torch.func.vjp(A, x)[1](y)[0], A.T(y))
    close(torch.func.jvp(A, (x,), (x,))[1], A(x))
    close(torch.func.vmap(A)(x), A(x))
    close(torch.func.vmap(lambda v: torch.func.vjp(A, x[0])[1](v)[0])(y), A.T(y))
    close(torch.func.jacrev(A)(x[0]).reshape(A.range.size, -1), A.dense())


@every
@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
def test_a_subset_has_the_rows_of_its_views(geometry, backend):
    A = ray_transform(GRID, geometry, backend=backend)
    x = A.domain.randn(rng=torch.Generator().manual_seed(0))
    torch.testing.assert_close(A.subset([3, 1])(x), A(x)[:, [3, 1]], rtol=1e-4, atol=1e-5)


def test_a_transform_survives_pickling():
    A = ray_transform(GRID, CONE)
    again = pickle.loads(pickle.dumps(A))
    x = torch.ones(GRID.shape)
    torch.testing.assert_close(again(x), A(x))
    assert again.backend == A.backend


def test_voxels_behind_the_source_cast_no_shadow():
    # The grid reaches beyond the source on the side that is turned away from the detector.
    geometry = ConeBeam(angles=[0.0], rows=5, columns=7, pixel=1.0, source_to_axis=5.0, source_to_detector=15.0)
    grid = VolumeGrid((5, 40, 5), 0.5, (3.0, 0.0, 0.0))
    x = torch.zeros(grid.shape)
    x[:, 32:] = 1  # y below -5 + ..., behind the source
    for backend in ("matrix", "torch", *(["numba"] if compiled.has_numba() else [])):
        assert ray_transform(grid, geometry, backend=backend)(x).abs().max() == 0
        assert ray_transform(grid, geometry, backend=backend)(1 - x).max() > 0


def test_memory_decides_who_computes(monkeypatch):
    monkeypatch.setattr(compiled, "has_numba", lambda: True)
    monkeypatch.setattr(volume, "has_numba", lambda: True)
    cpu, big = torch.device("cpu"), VolumeGrid((128, 128, 128), 0.03)
    many = ConeBeam(**{**SHARED, "rows": 200, "columns": 200}, **LENGTHS)
    choose = lambda grid, geometry: volume.chosen_backend(grid, geometry, rays_of(grid, geometry), cpu)  # noqa: E731
    assert choose(GRID, CONE) == "matrix"
    assert choose(GRID, Parallel3D(**SHARED)) == "stack"
    assert choose(big, many) == "numba"
    monkeypatch.setattr(volume, "has_numba", lambda: False)
    assert choose(big, many) == "torch"


def test_what_cannot_be_computed_is_refused_in_a_sentence(monkeypatch):
    with pytest.raises(BackendError, match="no ray transform of volumes"):
        ray_transform(GRID, CONE, backend="cuda")
    with pytest.raises(BackendError, match="square to the rotation axis"):
        ray_transform(GRID, CONE, backend="stack")
    with pytest.raises(GeometryError, match="axes"):
        ray_transform(VolumeGrid((4, 4), 1.0), CONE)
    monkeypatch.setattr(compiled, "has_numba", lambda: False)
    with pytest.raises(BackendError, match=r"ctuq\[volumes\]"):
        ray_transform(GRID, CONE, backend="numba")
    monkeypatch.setattr("ctuq.linops.memory.free_memory", lambda: 1000)
    with pytest.raises(ResourceError, match="fewer voxels"):
        ray_transform(GRID, CONE, backend="matrix")
