"""Views of volumes that disagree with a slice that one row sees alone count for less in all rows."""

from dataclasses import replace

import numpy as np
import pytest

from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.volume.job import reconstruct_volume
from ctuq.tomo.solids import solid_scan

ANGLES = np.deg2rad(np.arange(0, 360, 15))


def scan_of(distances, *, wrong=None):
    scan = solid_scan("shells", 12, ANGLES, noise=0.02, seed=0, distances=distances)
    projections = scan.projections.copy()
    if wrong is not None:
        projections[:, wrong] = np.roll(projections[:, wrong], 3, axis=-1)
    return replace(scan, projections=projections)


def reconstructed(scan):
    return reconstruct_volume(scan, options=VolumeOptions(method="tv", size=12, iterations=60))


@pytest.mark.parametrize("distances", [None, (100.0, 200.0)], ids=["parallel", "cone"])
def test_a_wrong_view_is_found_and_hardly_hurts(distances):
    sound, wrong = (reconstructed(scan_of(distances, wrong=view)) for view in (None, 7))
    told = [text for text in wrong.warnings if "times as far from the image" in text]
    assert len(told) == 1 and "1 of 24 views, first number 7 (at 105 degrees)" in told[0]
    assert not any("times as far from the image" in text for text in sound.warnings)
    assert wrong.scores["psnr"] > sound.scores["psnr"] - 1


@pytest.mark.parametrize("change", [{"tilt": 0.1}, {"row_offset": 60.0}], ids=["leans", "off the plane of the source"])
def test_a_scan_without_a_row_of_one_slice_is_left_as_it_is(change):
    scan = scan_of((100.0, 200.0), wrong=7)
    result = reconstructed(replace(scan, geometry=replace(scan.geometry, **change)))
    assert not any("times as far from the image" in text for text in result.warnings)
