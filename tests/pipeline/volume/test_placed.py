"""Where the fit of a volume with error bars begins with the rotation axis."""

from dataclasses import replace

import numpy as np
import pytest

from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.volume.job import reconstruct_volume
from ctuq.pipeline.volume.matched import match_pixels
from ctuq.pipeline.volume.placed import placed
from ctuq.recon.start import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.tomo.solids import solid_scan

ANGLES = np.deg2rad(np.arange(0, 360, 12))
OPTIONS = VolumeOptions("dip", 24)


@pytest.fixture(scope="module", params=[None, (100.0, 200.0)], ids=["parallel", "cone"])
def scan(request):
    return solid_scan("shells", 24, ANGLES, noise=0.02, seed=0, distances=request.param)


def beside(scan, columns):
    return replace(scan, geometry=replace(scan.geometry, detector_offset=columns * scan.geometry.pixel))


def test_an_axis_where_it_is_said_to_be_stays(scan):
    assert placed(scan, OPTIONS) is scan


@pytest.mark.parametrize("columns", [-2.0, 0.4])
def test_the_fit_begins_where_the_rays_say(scan, columns):
    found = placed(beside(scan, columns), OPTIONS)
    assert abs(found.geometry.detector_offset) < 0.15 * scan.geometry.pixel
    (told,) = [text for text in found.warnings if "The fit has the rotation axis" in text]
    assert "--systematics none" in told
    assert any("rotation axis moved" in step for step in found.provenance.steps)


@pytest.mark.parametrize(
    "options",
    [replace(OPTIONS, systematics="none"), replace(OPTIONS, uncertainty=False), VolumeOptions("tv", 24)],
    ids=["none", "no error bars", "total variation"],
)
def test_it_stays_where_it_is_not_asked_for(scan, options):
    moved = beside(scan, 0.4)
    assert placed(moved, options) is moved


def test_the_result_has_the_axis_of_its_fit(scan):
    small = UNetOptions(channels=(8, 8), skips=(4,), dims=3)
    options = replace(OPTIONS, size=8, samples=2, dip=DIPOptions(network=small, iterations=20, check_every=10))
    result = reconstruct_volume(beside(scan, 1.0), options=options)
    right = match_pixels(scan, result.grid).geometry
    assert abs(result.geometry.detector_offset - right.detector_offset) < 0.15 * scan.geometry.pixel
    assert any("The fit has the rotation axis" in text for text in result.warnings)
