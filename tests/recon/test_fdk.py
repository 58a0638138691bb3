import numpy as np
import pytest
import torch

from ctuq.errors import GeometryError, InputError
from ctuq.recon import cgls, fdk, sirt
from ctuq.recon.fbp import fbp
from ctuq.tomo import ConeBeam, Parallel3D, VolumeGrid, radians, ray_transform

GRID = VolumeGrid((24, 24, 24), 1.0)
CENTRE, RADIUS, MU = np.array([3.0, -2.0, 1.5]), 6.0, 0.04
TURN = radians(np.arange(0, 360, 4.0))
LENGTHS = dict(source_to_axis=90.0, source_to_detector=180.0)
CONE = dict(angles=TURN, rows=44, columns=44, pixel=1.6, **LENGTHS)


def chords(geometry):
    """Line integrals of a ball of known attenuation, closed form, one ray to a pixel."""
    first, middle, column, row = np.split(geometry.vectors()[:, None, None, :], 4, axis=-1)
    u = np.arange(geometry.columns) - (geometry.columns - 1) / 2
    v = np.arange(geometry.rows) - (geometry.rows - 1) / 2
    pixels = middle + u[:, None] * column + v[:, None, None] * row
    ray = pixels - first if geometry.diverging else np.broadcast_to(first, pixels.shape)
    away = np.linalg.norm(np.cross(CENTRE - pixels, ray), axis=-1) / np.linalg.norm(ray, axis=-1)
    lengths = 2 * np.sqrt(np.maximum(RADIUS**2 - away**2, 0))
    return torch.from_numpy(MU * lengths.swapaxes(0, 1)).float()


def distances(grid=GRID):
    """From each voxel to the ball's centre."""
    axes = [c + (np.arange(n) - (n - 1) / 2) * grid.voxel for n, c in zip(grid.shape[::-1], grid.centre, strict=True)]
    x, y, z = axes[0] - CENTRE[0], axes[1][::-1] - CENTRE[1], axes[2] - CENTRE[2]
    return torch.from_numpy(np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2))


def inside_and_outside(volume):
    away = distances()
    return float(volume[away < RADIUS - 2].mean()), float(volume[(away > RADIUS + 2) & (away < 10)].mean())


GEOMETRIES = {
    "cone": ConeBeam(**CONE),
    "short scan": ConeBeam(**{**CONE, "angles": radians(np.arange(-30, 180, 2.0))}),
    "shifted detector": ConeBeam(**{**CONE, "columns": 33, "detector_offset": 7.2}),
    "offsets": ConeBeam(**CONE, detector_offset=2.0, row_offset=-1.5, axis_offset=1.0),
    "pixels of two pitches": ConeBeam(**{**CONE, "rows": 30}, row_pixel=2.4),
    "rolled": ConeBeam(**CONE, roll=radians(12)),
    "leaning": ConeBeam(**CONE, tilt=radians(10), yaw=radians(-8)),
    "parallel": Parallel3D(angles=TURN[:45], rows=30, columns=36, pixel=0.8, row_pixel=1.0),
}


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_fdk_gives_a_ball_its_attenuation(geometry):
    A = ray_transform(GRID, geometry, backend="torch")
    inside, outside = inside_and_outside(fdk(A, chords(geometry)))
    assert inside == pytest.approx(MU, rel=0.02)
    assert abs(outside) < 0.02 * MU


@pytest.mark.parametrize("method", [sirt, cgls])
def test_iterative_methods_give_a_ball_its_attenuation(method):
    geometry = ConeBeam(**{**CONE, "angles": TURN[::3]})
    inside, outside = inside_and_outside(method(ray_transform(GRID, geometry), chords(geometry), iterations=60))
    assert inside == pytest.approx(MU, rel=0.02)
    assert abs(outside) < 0.03 * MU


@pytest.mark.parametrize("method", [sirt, cgls])
def test_iterative_methods_come_to_a_helix_and_a_leaning_axis(method):
    shared = dict(angles=TURN[::3], rows=44, columns=44, pixel=1.6)
    helix = ConeBeam(**shared, **LENGTHS).raised(np.linspace(-4, 4, 30))
    for geometry in (helix, Parallel3D(**{**shared, "pixel": 0.8}, axis_tilt=radians(25))):
        inside, _ = inside_and_outside(method(ray_transform(GRID, geometry), chords(geometry), iterations=60))
        assert inside == pytest.approx(MU, rel=0.03)


def test_weights_of_0_take_rays_out_of_an_iterative_method():
    geometry = ConeBeam(**{**CONE, "rows": 22, "columns": 22, "pixel": 3.2, "angles": TURN[::6]})
    A = ray_transform(GRID, geometry)
    y = A((distances() < RADIUS).float() * MU)
    weights = torch.ones_like(y)
    weights[5] = 0
    spoilt = torch.where(weights > 0, y, 100.0)
    for method in (sirt, cgls):
        clean, kept = (method(A, values, weights=weights, iterations=10) for values in (y, spoilt))
        torch.testing.assert_close(kept, clean, rtol=1e-3, atol=1e-4)


def test_a_batch_of_volumes_is_each_by_itself():
    geometry = ConeBeam(**{**CONE, "rows": 22, "columns": 22, "pixel": 3.2, "angles": TURN[::6]})
    A = ray_transform(GRID, geometry)
    y = torch.stack([chords(geometry), 2 * chords(geometry)])
    for method in (fdk, sirt, cgls):
        options = {} if method is fdk else {"iterations": 5}
        torch.testing.assert_close(method(A, y, **options)[0], method(A, y[0], **options), rtol=1e-3, atol=1e-5)


def test_the_middle_slice_is_the_fan_beams_filtered_back_projection():
    geometry = ConeBeam(**{**CONE, "rows": 45})
    A, y = ray_transform(VolumeGrid((1, 24, 24), 1.0), geometry, backend="torch"), chords(ConeBeam(**{**CONE, "rows": 45}))
    fan = ray_transform(VolumeGrid((24, 24), 1.0), geometry.plane)
    torch.testing.assert_close(fdk(A, y)[0], fbp(fan, y[22]), rtol=1e-3, atol=1e-5)


def test_what_fdk_is_not_for_is_refused_with_what_to_use():
    y = chords(GEOMETRIES["cone"])
    free = GEOMETRIES["cone"].raised(np.zeros(90))
    with pytest.raises(GeometryError, match="SIRT or CGLS"):
        fdk(ray_transform(GRID, free, backend="torch"), y)
    with pytest.raises(GeometryError, match="leans by 20 degrees"):
        leaning = Parallel3D(angles=TURN, rows=44, columns=44, pixel=1.6, axis_tilt=radians(20))
        fdk(ray_transform(GRID, leaning, backend="torch"), y)
    A = ray_transform(GRID, GEOMETRIES["cone"], backend="torch")
    with pytest.raises(InputError, match="shape"):
        fdk(A, y[1:])
    with pytest.raises(InputError, match="window"):
        fdk(A, y, window="blackman")
