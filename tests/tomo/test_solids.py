import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.tomo import VolumeGrid, VolumeScan, radians
from ctuq.tomo.simulate import RelativeNoise
from ctuq.tomo.solids import SOLIDS, simulate_volume, solid_scan
from ctuq.tomo.space import ConeBeam, Parallel3D

ANGLES = radians(np.arange(0, 360, 45))


@pytest.mark.parametrize("name", SOLIDS)
def test_a_solid_is_the_same_at_every_size_and_lies_within_the_ball_of_its_cube(name):
    coarse, fine = (SOLIDS[name](size, np.random.default_rng(3)) for size in (24, 48))
    assert coarse.min() == 0 < coarse.max() <= 1
    assert np.corrcoef(coarse.ravel(), fine.reshape(24, 2, 24, 2, 24, 2).mean((1, 3, 5)).ravel())[0, 1] > 0.85
    t = (np.arange(48) + 0.5) / 24 - 1
    assert fine[t[:, None, None] ** 2 + t[:, None] ** 2 + t**2 > 1].max() == 0


def test_shells_have_a_shell_a_gap_and_a_kernel():
    nut = SOLIDS["shells"](64, np.random.default_rng(0))
    values = {round(float(v), 2) for v in np.unique(nut)}
    assert {0.0, 0.55, 1.0} <= values
    assert 0.05 < (nut == 1).mean() < 0.3


@pytest.mark.parametrize(("distances", "kind"), [(None, Parallel3D), ((60.0, 150.0), ConeBeam)])
def test_a_simulated_scan_sees_the_whole_object_and_keeps_its_mass(distances, kind):
    scan = solid_scan("ball", 16, ANGLES, noise=0.0, seed=0, distances=distances)
    assert isinstance(scan, VolumeScan)
    assert type(scan.geometry) is kind
    assert scan.truth.shape == (16, 16, 16)
    edge = np.abs(scan.projections)
    assert max(edge[0].max(), edge[-1].max(), edge[..., 0].max(), edge[..., -1].max()) == 0
    mass = scan.truth.sum() * scan.grid.voxel**3
    pixel = scan.geometry.plane.pixel_at_axis
    # A cone magnifies what is nearer to the source by more than it loses of what is further away.
    np.testing.assert_allclose(scan.projections.sum((0, 2)).mean() * pixel**2, mass, rtol=0.03 if distances is None else 0.06)


def test_noise_has_the_level_that_is_asked_for():
    clean, noisy = (solid_scan("ball", 16, ANGLES, noise=noise, seed=0, distances=None) for noise in (0.0, 0.1))
    std = (noisy.projections - clean.projections).std()
    assert std == pytest.approx(0.1 * np.abs(clean.projections).mean(), rel=0.05)


def test_views_of_a_volume_scan_are_chosen_with_their_weights():
    scan = solid_scan("ball", 8, ANGLES, noise=0.0, seed=0, distances=None)
    weighted = VolumeScan(scan.projections, scan.geometry, weights=np.random.default_rng(0).random(scan.projections.shape))
    part = weighted.select([5, 1])
    np.testing.assert_array_equal(part.projections, scan.projections[:, [5, 1]])
    np.testing.assert_array_equal(part.weights, weighted.weights[:, [5, 1]])
    assert part.geometry == scan.geometry.subset([5, 1])
    assert weighted.every(3).n_angles == 3
    with pytest.raises(InputError, match="0 to 7"):
        scan.select([8])


def test_what_cannot_be_simulated_is_refused():
    for change, told in (
        (dict(size=1), "2 to"),
        (dict(seed=-1), "seed"),
        (dict(distances=(15.0, 60.0)), "inside the object"),
    ):
        with pytest.raises(InputError, match=told):
            solid_scan("ball", **{**dict(size=8, angles=ANGLES, noise=0.0, seed=0, distances=None), **change})
    grid = VolumeGrid((4, 4, 4), 1.0)
    with pytest.raises(InputError, match="finer"):
        simulate_volume(
            np.ones((4, 4, 4)), Parallel3D(angles=ANGLES, rows=4, columns=6, pixel=1.0), grid, RelativeNoise(0), rng=None
        )
