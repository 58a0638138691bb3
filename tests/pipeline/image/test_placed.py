"""A fit begins with the axis where the rays show it, if the axis is in the model and the ray transform can be moved."""

from dataclasses import replace

import numpy as np
import pytest

import ctuq
from ctuq.pipeline import ReconstructOptions, choose_grid, match_detector
from ctuq.pipeline.image.job import made_by
from ctuq.pipeline.image.placed import matched, placed
from ctuq.recon.dip import DIPOptions
from ctuq.tomo.axis import axis_column, with_axis_column
from ctuq.tomo.phantoms import ellipses
from ctuq.tomo.simulate import RelativeNoise, simulate
from ctuq.uncertainty.results.unseen_views import predict_views

OFF = 8.0
OPTIONS = ReconstructOptions(size=20, samples=8, directions=0, dip=DIPOptions(iterations=25))
BEGINS = "The fit begins with the rotation axis at column"


@pytest.fixture(scope="module")
def scan():
    """A half-turn about an object, whose axis is said to be eight columns beside where it is."""
    grid, rng = ctuq.VolumeGrid((20, 20), 2.0), np.random.default_rng(0)
    beam = ctuq.ParallelBeam(angles=ctuq.radians(np.arange(0, 180, 12.0)), columns=30, pixel=2.0)
    told = simulate(ellipses(40, rng), beam, grid, RelativeNoise(0.01), rng=rng, attenuation=0.05)
    return replace(told, geometry=with_axis_column(beam, axis_column(beam) + OFF))


def test_the_fit_begins_where_the_axis_is_and_says_so(scan):
    result = ctuq.reconstruct(scan, options=OPTIONS)
    assert axis_column(result.scan.geometry) == pytest.approx(14.5, abs=0.2)
    axis = result.systematics["axis"]
    assert abs(axis.values[0]) < 1.0  # mm, half a column, beside where the fit began
    said = [text for text in result.warnings if "rotation axis" in text]
    assert len(said) == 2 and "at column 22.5, but the rays say 14." in said[0] and said[1].startswith(BEGINS)
    assert made_by(result, scan, OPTIONS)
    # Whoever foretells other views gives the scanner as it was said to be.
    used = match_detector(scan, result.grid)
    before, now = (ctuq.ray_transform(result.grid, geometry) for geometry in (used.geometry, result.scan.geometry))
    foretold, expected = predict_views(result, before), predict_views(result, now)
    np.testing.assert_allclose(foretold[0], expected[0], atol=1e-5 * expected[0].max())
    assert np.sqrt(np.mean((used.projections - foretold[0]) ** 2 / foretold[1])) < 2


def test_an_axis_that_is_not_in_the_model_or_not_contradicted_stays(scan):
    right = replace(scan, geometry=with_axis_column(scan.geometry, 14.5))
    assert placed(right, OPTIONS) is right
    for change in ({"systematics": "none"}, {"systematics": "hardening"}, {"uncertainty": False, "systematics": "default"}):
        assert placed(scan, replace(OPTIONS, **change)) is scan
    assert placed(scan, replace(OPTIONS, method="tv")) is scan
    few = scan.select(np.arange(6))  # an arc: by default the axis is not in the model
    assert placed(few, OPTIONS) is few


def test_a_scan_is_moved_once_and_only_where_its_rays_can_be_made_anew(scan):
    moved = placed(scan, OPTIONS)
    assert placed(moved, OPTIONS) is moved
    told = placed(scan, OPTIONS, moves=False)
    assert told.geometry == scan.geometry and any("but the rays say" in text for text in told.warnings)
    again = placed(told, OPTIONS)  # what a file's reading has told is not told twice
    assert sum("but the rays say" in text for text in again.warnings) == 1
    used, grid = matched(scan, OPTIONS)
    assert grid == choose_grid(moved, OPTIONS.size) and used.geometry == match_detector(moved, grid).geometry
    A = ctuq.ray_transform(grid, scan.geometry, backend="matrix")
    own = ctuq.reconstruct(scan, options=OPTIONS, ray_transform=A)
    assert own.scan.geometry == scan.geometry and not any(text.startswith(BEGINS) for text in own.warnings)
