"""Pixels of an area detector that are finer than voxels are averaged for the network, and nothing moves by it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.volume.job import plan_volume, reconstruct_volume, volume_made_by
from ctuq.pipeline.volume.matched import match_pixels
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.tomo import ConeBeam, Parallel3D, VolumeGrid, VolumeScan
from ctuq.tomo.rays.volume import volume_transform

ANGLES = np.deg2rad(np.arange(0, 360, 45))
FINE = {"angles": ANGLES, "rows": 50, "columns": 63, "pixel": 0.5, "row_pixel": 0.4, "detector_offset": 0.7, "row_offset": -1.1}
BEAMS = {
    "parallel": Parallel3D(**FINE),
    "leaning": Parallel3D(**FINE, axis_tilt=0.3),
    "cone": ConeBeam(**FINE, source_to_axis=60.0, source_to_detector=90.0),
    "rolled cone": ConeBeam(**FINE, source_to_axis=60.0, source_to_detector=90.0, roll=0.2),
}
COARSE = VolumeGrid((9, 12, 12), 1.0)


def drawn():
    """A ball beside the axis, drawn three times finer, and its grid."""
    fine = COARSE.resized(36)
    z, y, x = (fine.voxel * (i - (n - 1) / 2) for i, n in zip(np.indices(fine.shape), fine.shape, strict=True))
    ball = np.hypot(np.hypot(z - 0.5, y - 1.0), x + 1.5) < 3
    return torch.from_numpy(0.1 * ball.astype(np.float32)), fine


def rays_of(beam):
    ball, grid = drawn()
    return volume_transform(grid, beam)(ball).numpy()


def scan_of(beam):
    weights = np.linspace(0.5, 1.5, int(np.prod(beam.shape)), dtype=np.float32).reshape(beam.shape)
    return VolumeScan(rays_of(beam), beam, weights=weights)


@pytest.mark.parametrize("name", BEAMS)
def test_averaged_rays_are_those_of_the_coarse_detector(name):
    scan = scan_of(BEAMS[name])
    found = match_pixels(scan, COARSE)
    bins = {"parallel": (2, 2), "leaning": (2, 2), "cone": (3, 3), "rolled cone": (1, 3)}[name]
    assert found.geometry.shape == (50 // bins[0], 8, 63 // bins[1])

    def off(**moved):
        return np.abs(rays_of(replace(found.geometry, **moved)) - found.projections).mean()

    # Where the coarse detector is moved by half of one of the scan's pixels its rays are others.
    beside = [
        off(**{name: getattr(found.geometry, name) + step})
        for name in ("row_offset", "detector_offset")
        for step in (-0.2, 0.2)
    ]
    assert off() < 0.7 * min(beside)
    assert found.weights is not None and scan.weights is not None
    assert found.weights.mean() == pytest.approx(scan.weights.mean(), rel=0.03)


def test_where_pixels_are_as_wide_as_voxels_the_scan_stays_itself():
    scan = scan_of(BEAMS["cone"])
    assert match_pixels(scan, VolumeGrid((30, 40, 40), 0.25)) is scan


def test_the_network_is_given_no_more_rays_than_its_voxels_ask_for_and_the_result_is_of_the_scan():
    scan = replace(scan_of(BEAMS["cone"]), weights=None)
    dip = DIPOptions(network=UNetOptions(channels=(4, 4), skips=(2,), dims=3), iterations=4, check_every=2)
    options = VolumeOptions("dip", 12, dip=dip, uncertainty=False)
    with_bars = plan_volume(scan, replace(options, uncertainty=True))
    assert with_bars.bars is not None and with_bars.bars.route.rays < scan.projections.size / 4
    result = reconstruct_volume(scan, options=options)
    assert result.geometry.shape[0] < scan.geometry.rows / 2 and volume_made_by(result, scan, options)
    assert any("columns averaged" in text for text in result.provenance.steps)
    tv = reconstruct_volume(scan, options=VolumeOptions(method="tv", size=12))
    assert tv.geometry == scan.geometry
