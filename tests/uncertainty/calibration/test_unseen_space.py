"""Error bars in directions of space that no view sees."""

import numpy as np
import pytest
import torch

from ctuq.linops.sparse import SparseRows
from ctuq.tomo import ParallelBeam, VolumeGrid, ray_transform
from ctuq.tomo.rays.rows import ray_rows
from ctuq.tomo.rays.volume import volume_transform
from ctuq.tomo.space import ConeBeam, FreeBeam, Parallel3D
from ctuq.uncertainty.calibration.directions import UnseenDirections
from ctuq.uncertainty.calibration.not_in_rays import NotInRays, NotInRaysBySteps
from ctuq.uncertainty.calibration.unseen import UnseenField, WidenedPosterior, of_all_directions
from ctuq.uncertainty.model.covariance import ImageCovariance

SHAPE = (10, 16, 16)
CPU = torch.device("cpu")


def parallel(first, stop, views=24, *, tilt=0.0):
    angles = np.deg2rad(np.linspace(first, stop, views, endpoint=False))
    return Parallel3D(angles=angles, rows=14, columns=22, pixel=1.0, axis_tilt=np.deg2rad(tilt))


def free(geometry):
    return FreeBeam(table=geometry.vectors(), rows=geometry.rows, columns=geometry.columns, is_cone=geometry.diverging)


def of(geometry):
    return UnseenDirections.of(geometry, SHAPE, CPU)


def share(directions):
    """Of all directions."""
    k = np.meshgrid(*(np.fft.fftfreq(2 * n) for n in SHAPE), indexing="ij")
    near = np.sqrt(sum(axis**2 for axis in k)) <= 0.5
    return float((directions.distance.numpy()[near] > 0).mean())


def ball(rng, level=1.0):
    """A ball of noise: what the field takes an object for."""
    z, y, x = (np.arange(n) - (n - 1) / 2 for n in SHAPE)
    inside = torch.from_numpy((z[:, None, None] / 4) ** 2 + (y[:, None] / 6) ** 2 + (x / 6) ** 2 < 1)
    return level * (1 + 0.5 * torch.randn(SHAPE, generator=rng, dtype=torch.float64)) * inside


@pytest.mark.parametrize(("first", "stop"), [(0, 100), (20, 140), (-45, 45)])
def test_free_vectors_say_what_the_arc_says(first, stop):
    """A turn about the axis by the formula of an arc, and by the rays of each view and its neighbour."""
    geometry = parallel(first, stop)
    torch.testing.assert_close(of(geometry).distance, of(free(geometry)).distance, rtol=0, atol=1e-12)
    last = geometry.angles[-1] - geometry.angles[0]
    assert share(of(geometry)) == pytest.approx(1 - last / np.pi, abs=0.03)


def test_all_around_nothing_is_missing():
    for geometry in (parallel(0, 180), parallel(0, 360), parallel(0, 160), parallel(0, 180, 5), parallel(0, 360, tilt=10)):
        assert of(geometry) is None and of(free(geometry)) is None
    fan = {"source_to_axis": 60.0, "source_to_detector": 120.0, "rows": 20, "columns": 40, "pixel": 2.0}
    cone = ConeBeam(angles=np.linspace(0, 2 * np.pi, 24, endpoint=False), **fan)
    heights = np.linspace(-5, 5, 24)
    assert of(cone) is None and of(cone.raised(heights)) is None
    # The outer rays of a cone see further than its views turn.
    narrow = ConeBeam(angles=np.deg2rad(np.arange(0, 90, 4.0)), **fan)
    assert share(of(narrow)) < share(of(parallel(0, 90))) - 0.1


@pytest.mark.parametrize("tilt", [25, 45])
def test_about_an_axis_that_leans_a_cone_of_directions_is_missing(tilt):
    found = of(parallel(0, 360, 40, tilt=tilt))
    assert share(found) == pytest.approx(1 - np.cos(np.deg2rad(tilt)), abs=0.02)
    # The axis itself amid them: the highest of its frequencies, whose opposite is itself, is the cone's height away.
    assert float(found.distance[3, 0, 0]) == pytest.approx(3 / (2 * SHAPE[0]) * np.sin(np.deg2rad(tilt)))
    assert float(found.distance[0, 3, 0]) == 0
    told = found.told
    assert "Of all directions" in told and told.endswith("where it has more.")


def test_solving_by_steps_leaves_what_a_factor_leaves(rng):
    geometry = ParallelBeam(angles=np.deg2rad(np.arange(0, 60, 5.0)), columns=34, pixel=1.0)
    A = ray_transform(VolumeGrid((24, 24), 1.0), geometry, backend="matrix")
    rows = ray_rows(A, torch.arange(A.range.size), torch.ones(A.range.size))
    white = torch.randn(20, 24 * 24, generator=rng, dtype=torch.float64)
    for noise in (1e-4, 0.01, 1.0):
        within = NotInRays(rows, 1e-3)(white)  # as images of which rays see little
        for x, near in ((white, 0.3), (within, 0.03)):
            exact, found = NotInRays(rows, noise)(x), NotInRaysBySteps(rows, noise)(x)
            assert float((found - exact).norm() / exact.norm()) < near
        # Rays see less than their noise of it, and of what it misses.
        assert float(rows(found).square().mean().sqrt()) < 0.5 * noise**0.5
        assert float(rows(found - exact).square().mean().sqrt()) < 0.2 * noise**0.5


def test_no_images_and_empty_ones_take_no_steps(rng):
    geometry = ParallelBeam(angles=np.deg2rad(np.arange(0, 60, 5.0)), columns=34, pixel=1.0)
    A = ray_transform(VolumeGrid((24, 24), 1.0), geometry, backend="matrix")
    found = NotInRaysBySteps(ray_rows(A, torch.arange(A.range.size), torch.ones(A.range.size)), 0.01)
    assert found(torch.zeros(0, 576)).shape == (0, 576)
    one = torch.randn(1, 576, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(found(torch.cat([one, 0 * one])), torch.cat([found(one), 0 * one]), rtol=0, atol=0.4)
    assert float(found(torch.zeros(3, 576)).abs().max()) == 0


class Even(ImageCovariance):
    """The same variance everywhere, of whose images a region is shown."""

    def __init__(self, matrix, variance, region=None):
        self.shape, self.device, self.matrix, self.error = SHAPE, CPU, matrix, 0.0
        self._variance, self._region = variance, (..., *(region or ()))

    shape = device = matrix = error = None

    def times(self, images):
        return self._variance * images.double()

    def draws(self, n, *, rng):
        return self._variance**0.5 * torch.randn(n, self.size, generator=rng, dtype=torch.float64)

    def std(self):
        return torch.full(SHAPE, self._variance**0.5, dtype=torch.float64)[self._region]

    def deviations(self, n, *, rng):
        return self.draws(n, rng=rng).reshape(n, *SHAPE)[self._region].float()


@pytest.mark.parametrize("geometry", [parallel(0, 90), parallel(0, 360, tilt=40)], ids=["arc", "leaning axis"])
@pytest.mark.parametrize("region", [None, (slice(2, 5), slice(0, 16), slice(4, 12))])
def test_a_volume_has_room_in_unseen_directions_and_its_rays_do_not_see_it(geometry, region, rng):
    A = volume_transform(VolumeGrid(SHAPE, 1.0), geometry)
    rows = ray_rows(A, torch.arange(A.range.size), torch.ones(A.range.size))
    assert isinstance(rows, SparseRows)
    plain, noise = Even(rows, 1e-6, region), 0.01
    found, told = of_all_directions(plain, geometry, ball(rng), 4.0, noise, rng=rng, region=region)
    assert isinstance(found, WidenedPosterior) and len(told) == 1
    std, drawn = found.std(), found.deviations(256, rng=rng)
    assert std.shape == drawn.shape[1:] == torch.zeros(SHAPE)[region or ...].shape
    assert found.error == pytest.approx(512**-0.5)
    # Inside of the object as large as what is missing, which the plain posterior knew nothing of.
    assert float(std.max()) > 30 * float(plain.std().max())
    middle = (drawn.double().square().mean(0).sqrt() / std).median()
    assert float(middle) == pytest.approx(1, abs=0.1)
    if region is None:
        seen = (2 * rows(drawn.flatten(1))).square().mean().sqrt()  # the scale is 4
        assert float(seen) < 0.5 * noise**0.5
        field = found._field.draws(64, rng=rng).flatten(1)
        assert float((2 * rows(field)).square().mean().sqrt()) > 2 * float(seen)


def test_of_an_object_alike_in_all_directions_the_field_is_as_large_as_what_is_missing(rng):
    """The image shows nothing in unseen directions, and the field has the object's own energy there; 5 % of Monte Carlo."""
    directions, ratios = of(parallel(0, 60)), []
    for _ in range(6):
        whole = ball(rng)
        far = (directions.distance * 10 > 2).double()
        padded = torch.fft.fftn(whole, s=directions.distance.shape)
        shown = torch.fft.ifftn(padded * (directions.distance == 0)).real[tuple(slice(n) for n in SHAPE)]
        field = UnseenField.of(directions, shown, torch.zeros_like(directions.distance))
        drawn = torch.fft.fftn(field.draws(32, rng=rng), s=far.shape, dim=(-3, -2, -1)).abs().square().mean(0)
        ratios.append(float((far * drawn).sum() / (far * padded.abs().square()).sum()))
    assert np.mean(ratios) == pytest.approx(1, abs=0.3)
