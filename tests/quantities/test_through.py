"""Quantities through the slices of a stack, against the whole covariance of all slices, drawn and in closed form."""

from dataclasses import replace

import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.quantities import Box, Circle, Cylinder, Quantity, Sphere
from ctuq.quantities.regions import shares_of
from ctuq.quantities.solids import sections_of, shares_of_solid
from ctuq.quantities.through import ALIKE, likeness, summed
from ctuq.tomo import Parallel3D, VolumeGrid
from ctuq.uncertainty.results.volume import VolumeResult

SHAPE, PITCHES = (5, 8, 9), (0.7, 1.5, 1.5)
GRID = VolumeGrid(SHAPE, 1.5, (2.0, -3.0, 4.0))
BEAM = Parallel3D(angles=np.arange(4.0), rows=5, columns=9, pixel=1.5, row_pixel=0.7)


@pytest.fixture
def stack():
    """A stack whose slices' covariances are their directions alone: there are as many as pixels have to do with one another."""
    rng = np.random.default_rng(3)
    directions = rng.standard_normal((5, 12, 8, 9)).astype(np.float32)
    std = np.sqrt(np.sum(directions.astype(np.float64) ** 2, axis=1)).astype(np.float32)
    mean = np.full(SHAPE, 0.5, np.float32)
    alike = np.array([1.0, 0.6, 0.2, 0.2, 0.0])
    return VolumeResult(mean, GRID, BEAM, "dip", std=std, slice_pitch=0.7, directions=directions, alike=alike)


def spread(stack, weights):
    """Standard deviation that each slice adds to a sum of weights, by its whole covariance."""
    each = np.einsum("zkyx,zyx->zk", stack.directions.astype(np.float64), weights)
    return np.linalg.norm(each, axis=1)


@pytest.mark.parametrize("solid", [Sphere(2, -3, 4, 1.6), Box(-2, -5, 2.5, 3, 0, 5), Cylinder(1, -2, 2.5, 3.1, 5.3)])
def test_the_variance_of_a_mean_is_that_of_all_slices_together(stack, solid):
    weights = shares_of_solid(solid, GRID, PITCHES)
    weights /= weights.sum()
    s, lags = spread(stack, weights), np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    found = stack.region(solid)
    assert found.value == pytest.approx(0.5)
    assert found.standard_uncertainty**2 == pytest.approx(s @ stack.alike[lags] @ s, rel=1e-4)
    assert sum(found.budget.values()) == pytest.approx(found.standard_uncertainty**2)
    assert found.budget[ALIKE] == pytest.approx(s @ stack.alike[lags] @ s - s @ s, rel=1e-4)
    assert "by 0.60" in found.notes[0]


def test_slices_of_which_nothing_is_known_err_wholly_alike_and_independent_ones_not_at_all(stack):
    solid = Cylinder(1, -2, 2.5, 3.1, 5.3)
    weights = shares_of_solid(solid, GRID, PITCHES)
    s = spread(stack, weights / weights.sum())
    unknown = replace(stack, alike=None).region(solid)
    assert unknown.standard_uncertainty == pytest.approx(s.sum(), rel=1e-4)
    assert "wholly alike" in unknown.notes[0]
    alone = replace(stack, alike=np.array([1.0, 0, 0, 0, 0])).region(solid)
    assert alone.standard_uncertainty == pytest.approx(np.linalg.norm(s), rel=1e-4)


def test_a_region_in_one_slice_is_what_the_slice_itself_tells(stack):
    solid, circle = Cylinder(1, -2, 2.5, 3.65, 4.35), Circle(1, -2, 2.5)
    through, own = stack.region(solid), stack.slice(2).region(circle)
    assert through.standard_uncertainty == pytest.approx(own.standard_uncertainty, rel=1e-9)
    assert stack.slice(2).z == pytest.approx(4.0) and not through.notes
    share = replace(stack, mean=np.linspace(0, 1, 360, dtype=np.float32).reshape(SHAPE))
    one = share.slice(2).fraction(circle, above=0.5)
    assert share.fraction(solid, above=0.5).standard_uncertainty == pytest.approx(one.standard_uncertainty, rel=1e-9)
    assert share.size(solid, above=0.5).value == pytest.approx(one.value * np.pi * 2.5**2 * 0.7, rel=1e-6)


def test_a_contrast_knows_what_both_regions_have_in_common(stack):
    a, b = Cylinder(1, -2, 2.5, 3.1, 5.3), Box(-2, -5, 2.5, 3, 0, 5)
    weights = [shares_of_solid(each, GRID, PITCHES) for each in (a, b)]
    s = spread(stack, weights[0] / weights[0].sum() - weights[1] / weights[1].sum())
    lags = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    assert stack.contrast(a, b).standard_uncertainty ** 2 == pytest.approx(s @ stack.alike[lags] @ s, rel=1e-4)
    assert stack.contrast(a, a).standard_uncertainty == pytest.approx(0, abs=1e-12)


def test_a_hidden_error_is_the_same_in_all_slices(stack):
    effects = np.full((5, 1, 8, 9), 0.01, np.float32)
    directions = np.concatenate([1e-4 * stack.directions, effects], axis=1)
    std = np.sqrt(np.sum(directions.astype(np.float64) ** 2, axis=1)).astype(np.float32)
    hard = replace(stack, directions=directions, std=std, effects=effects, hidden=("hardening",), alike=np.eye(1, 5)[0])
    found = hard.region(Cylinder(1, -2, 2.5, 3.1, 5.3))
    assert found.budget["beam hardening"] == pytest.approx(0.01**2, rel=1e-4)
    assert found.standard_uncertainty == pytest.approx(0.01, rel=1e-3)


def test_a_cylinder_is_a_disc_times_the_share_of_each_slice():
    solid = Cylinder(1, -2, 2.5, 5.0, 3.0)
    shares, disc = shares_of_solid(solid, GRID, PITCHES), shares_of(Circle(1, -2, 2.5), VolumeGrid((8, 9), 1.5, (2.0, -3.0)))
    edges = 4.0 + 0.7 * (np.arange(6) - 2.5)
    for z in range(5):
        share = max(min(edges[z + 1], 5.0) - max(edges[z], 3.0), 0) / 0.7
        np.testing.assert_allclose(shares[z], share * disc, atol=1e-12)
    assert shares.sum() * np.prod(PITCHES) == pytest.approx(np.pi * 2.5**2 * 2.0, rel=1e-6)
    assert [z for z, _ in sections_of(solid, GRID, PITCHES)] == [1, 2, 3]


def test_likeness_finds_how_alike_images_err():
    rng = np.random.default_rng(0)
    n, rays, wanted = 12, 4000, 0.7
    lags = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    image = np.linalg.cholesky(wanted**lags) @ rng.standard_normal((n, rays))
    signal, noise = np.full((n, rays), 0.04), rng.uniform(0.01, 0.1, (n, rays))
    residual = 0.2 * image + np.sqrt(noise) * rng.standard_normal((n, rays))
    residual[4] = np.nan
    found = likeness(residual, signal, noise)
    assert found[0] == 1
    assert found[1] == pytest.approx(wanted, abs=0.05)
    assert found[2] == found[3] == pytest.approx((wanted**2 + wanted**3) / 2, abs=0.05)
    assert np.all((found >= 0) & (found <= 1)) and found[11] < 0.2
    alone = likeness(rng.standard_normal((n, rays)) * 0.3, signal, np.full((n, rays), 0.05))
    assert np.all(alone[1:] < 0.05)
    np.testing.assert_array_equal(likeness(residual[:1], signal[:1], noise[:1]), [1.0])


def test_what_one_slice_has_to_say_of_itself_is_no_news_of_the_sum():
    one = Quantity("a", 1.0, 2.0, 1.96, (0, 2), budget={"posterior": 4.0}, notes=("dark",))
    two = replace(one, notes=("dark", "bright"))
    assert summed([(0, one), (1, two)], None, name="b", level=0.95).notes[:-1] == ("dark",)
    assert summed([(0, one)], None, name="b", level=0.95).notes == ("dark",)


def test_what_cannot_be_asked_of_a_stack_is_refused(stack):
    with pytest.raises(InputError, match="out of the volume along z"):
        stack.region(Sphere(2, -3, 4, 2.0))
    with pytest.raises(InputError, match="single slices"):
        stack.probability(Sphere(2, -3, 4, 1.0), above=0.1, at_least=1.0)
    with pytest.raises(InputError, match="single slices"):
        stack.covariance(np.ones((1, *SHAPE)))
    with pytest.raises(InputError, match="single slices"):
        stack.measure(np.mean)
    with pytest.raises(InputError, match="no slice 5"):
        stack.slice(5)
    with pytest.raises(InputError, match="far smaller than a voxel"):
        stack.region(Sphere(2, -3, 4.01, 1e-4))
    hole = stack.mean.copy()
    hole[3] = np.nan
    broken = replace(stack, mean=hole)
    assert broken.made == [0, 1, 2, 4]
    with pytest.raises(InputError, match="Slice 3 could not be made"):
        broken.region(Cylinder(1, -2, 2.5, 3.1, 5.3))
    assert broken.region(Cylinder(1, -2, 2.5, 3.1, 4.3)).value == pytest.approx(0.5)
    with pytest.raises(InputError, match="no covariance"):
        replace(stack, directions=None).slice(0)
    with pytest.raises(InputError, match="no covariance"):
        replace(stack, directions=None).fraction(Sphere(2, -3, 4, 1.0), above=0.1)
