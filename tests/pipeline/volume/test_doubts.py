"""What a volume's scan tells against itself: an axis beside its place, an object that goes on above or below."""

from dataclasses import replace

import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.pipeline.volume.doubts import doubts_of_volume
from ctuq.tomo.solids import solid_scan

ANGLES = np.deg2rad(np.arange(0, 360, 12))


@pytest.fixture(scope="module", params=[None, (100.0, 200.0)], ids=["parallel", "cone"])
def scan(request):
    return solid_scan("shells", 24, ANGLES, noise=0.02, seed=0, distances=request.param)


def told(scan, words):
    return [text for text in doubts_of_volume(scan, scan.grid) if words in text]


@pytest.mark.parametrize("off", [-0.4, 0.0, 0.4])
def test_an_axis_a_part_of_a_column_beside_its_place_is_told(scan, off):
    moved = replace(scan, geometry=replace(scan.geometry, detector_offset=off * scan.geometry.pixel))
    found = told(moved, "rotation axis is taken at")
    assert len(found) == bool(off)
    middle = (scan.geometry.columns - 1) / 2
    assert not off or f"the rays say {middle:.1f}" in found[0]


def test_rows_that_are_cut_matter_to_a_cone_and_not_to_parallel_rays(scan):
    middle, rows = scan.projections[[scan.geometry.rows // 2]], scan.geometry.rows
    found = told(replace(scan, projections=np.repeat(middle, rows, axis=0)), "lowest and highest detector row")
    assert len(found) == scan.geometry.diverging
    assert not found or "the other methods put what lies beyond into the outermost slices" in found[0]


def test_a_cone_that_hardly_meets_its_volume_is_refused(scan):
    """A middle row of 400 of 16 gave a volume, of which 100 % fell beside the detector."""
    geometry = replace(scan.geometry, row_offset=20 * scan.geometry.rows * scan.geometry.row_pitch)
    grid = replace(scan.grid, centre=(*scan.grid.centre[:2], float(np.mean(geometry.heights))))
    if not geometry.diverging:  # parallel rays do not care how high they run
        assert not [text for text in doubts_of_volume(replace(scan, geometry=geometry), grid) if "above or below" in text]
        return
    with pytest.raises(InputError, match="above or below"):
        doubts_of_volume(replace(scan, geometry=geometry), grid)


def test_a_whole_turn_by_uneven_steps_misses_no_direction():
    parallel = solid_scan("shells", 24, ANGLES, noise=0.02, seed=0, distances=None)
    uneven = ANGLES + np.deg2rad(np.random.default_rng(0).normal(0, 1, len(ANGLES)))
    for angles in (ANGLES, uneven, np.deg2rad(8.1 * np.arange(len(ANGLES))), np.deg2rad(11.0 * np.arange(len(ANGLES)))):
        assert not told(replace(parallel, geometry=replace(parallel.geometry, angles=angles)), "missing directions")
    arc = replace(parallel.geometry, angles=np.deg2rad(np.linspace(0, 150, len(ANGLES))))
    assert "The views cover 155.2 degrees of the 180" in told(replace(parallel, geometry=arc), "missing directions")[0]
