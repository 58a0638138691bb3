"""A picture of a known object tells how much it attenuates only on the field that it was made for."""

import numpy as np
import pytest
import tifffile

from ctuq.errors import InputError
from ctuq.files import read, write_scan
from ctuq.tomo.geometry import ParallelBeam, VolumeGrid
from ctuq.tomo.rays.entries import build_matrix
from ctuq.tomo.scan import Scan

MU = 0.05


def picture(side, size=128):
    """A plate with a hole off its centre, 12 mm wide, in a picture of so many mm."""
    x = (np.arange(size) + 0.5 - size / 2) * side / size
    X, Y = x[None], -x[:, None]
    return (X**2 + (Y / 0.8) ** 2 < 36) & ((X - 2) ** 2 + (Y - 1.5) ** 2 > 2)


def scan_of(path, shift=0.0):
    """The plate in a beam of 24 mm whose axis may be aside, so that views have less than the rays in common."""
    beam = ParallelBeam(angles=np.deg2rad(np.arange(0, 360, 10.0)), columns=80, pixel=0.3, detector_offset=shift)
    fine = VolumeGrid((256, 256), 24 / 256)
    rays = build_matrix(fine, beam) @ (MU * picture(24, 256)).ravel().astype(np.float32)
    write_scan(Scan(rays.reshape(beam.shape), beam), path / "scan.h5")
    return path / "scan.h5"


def test_a_scan_for_a_truth_is_told_what_one_is(tmp_path):
    path = scan_of(tmp_path)
    with pytest.raises(InputError, match=r"TIFF, PNG or FITS picture of two values.*taken by itself: leave --truth out"):
        read(path, truth=path)


def test_on_the_common_field_nothing_is_told(tmp_path):
    tifffile.imwrite(tmp_path / "truth.tif", picture(24.0).astype(np.uint8))
    scan = read(scan_of(tmp_path), truth=tmp_path / "truth.tif")
    assert scan.truth.max() == pytest.approx(MU, rel=0.01) and scan.grid.voxel * 128 == pytest.approx(24)
    assert not any("truth" in text for text in scan.warnings)


def test_on_another_field_the_one_that_explains_the_rays_is_taken_and_told(tmp_path):
    path, wide = scan_of(tmp_path, shift=3.0), 30.0
    tifffile.imwrite(tmp_path / "truth.tif", picture(wide).astype(np.uint8))
    scan = read(path, truth=tmp_path / "truth.tif")
    assert scan.truth.max() == pytest.approx(MU, rel=0.01) and scan.grid.voxel * 128 == pytest.approx(wide)
    assert any("taken to be 30 mm wide" in text for text in scan.warnings)


def test_on_no_field_of_the_scan_it_is_in_doubt_or_refused(tmp_path):
    path = scan_of(tmp_path)
    tifffile.imwrite(tmp_path / "truth.tif", picture(22.0).astype(np.uint8))
    assert any("in doubt" in text for text in read(path, truth=tmp_path / "truth.tif").warnings)
    tifffile.imwrite(tmp_path / "other.tif", np.roll(picture(24.0), 60, axis=1).astype(np.uint8))
    with pytest.raises(InputError, match="do not resemble"):
        read(path, truth=tmp_path / "other.tif")
