"""An object that is known to be of one material, from the option to the sentence."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import ctuq
from ctuq.app.report.systematics import errors_told
from ctuq.errors import InputError
from ctuq.pipeline import ReconstructOptions
from ctuq.pipeline.image.job import made_by
from ctuq.pipeline.material import hardened
from ctuq.pipeline.stack.job import reconstruct_stack
from ctuq.recon.dip import DIPOptions
from ctuq.tomo import ParallelBeam, Scan, VolumeGrid
from ctuq.tomo.rays.entries import build_matrix
from ctuq.tomo.space import Parallel3D
from ctuq.tomo.volume_scan import VolumeScan

SIZE, CPU = 28, torch.device("cpu")
GRID = VolumeGrid((SIZE, SIZE), 1.0)


def scan_of(shape, c=0.1, noise=0.005, views=24, columns=40, unit=1.0):
    """Rays through an object made of pixels four times finer, the longest of 2, by a beam that hardens."""
    y, x = (np.mgrid[: 4 * SIZE, : 4 * SIZE] + 0.5) / (2 * SIZE) - 1
    image = np.asarray(shape(x, y), np.float32)
    geometry = ParallelBeam(angles=np.arange(views) * np.pi / views, columns=columns, pixel=1.0)
    p = (build_matrix(VolumeGrid(image.shape, 0.25), geometry) @ image.ravel()).reshape(geometry.shape).astype(np.float64)
    scale = 2 / p.max()
    p *= scale
    y = np.log1p(2 * c * p) / (2 * c) if c else p
    y += 2 * noise * np.random.default_rng(0).standard_normal(y.shape)
    truth = scale * image.reshape(SIZE, 4, SIZE, 4).mean((1, 3))
    return Scan((unit * y).astype(np.float32), geometry, truth=(unit * truth).astype(np.float32), grid=GRID)


def disc(x, y):
    return np.hypot(x - 0.05, y + 0.08) < 0.72


def error(result):
    return float(np.sqrt(np.mean((result.mean - result.truth) ** 2)))


@pytest.fixture(scope="module")
def scan():
    return scan_of(disc)


def test_hardening_is_found_within_its_interval_and_none_where_there_is_none(scan):
    found, none = hardened(scan, SIZE, CPU), hardened(scan_of(disc, c=0), SIZE, CPU)
    assert abs(found.c - 0.1) < 2 * found.sd < 0.1
    assert abs(none.c) < 2 * none.sd < 0.1


def test_a_unit_of_its_own_scales_hardening_and_nothing_else(scan):
    found, scaled = hardened(scan, SIZE, CPU), hardened(scan_of(disc, unit=300.0), SIZE, CPU)
    assert 300 * scaled.c == pytest.approx(found.c, rel=0.1) and 300 * scaled.sd == pytest.approx(found.sd, rel=0.1)


@pytest.mark.parametrize("method", ["tv", "fbp"])
def test_classical_images_are_of_rays_without_hardening(scan, method):
    plain = ctuq.reconstruct(scan, method, size=SIZE, uncertainty=False)
    freed = ctuq.reconstruct(scan, method, size=SIZE, uncertainty=False, material="uniform")
    assert error(freed) < 0.7 * error(plain)
    np.testing.assert_allclose(freed.scan.projections + freed.removed, scan.projections, atol=1e-5)
    assert "one material" in freed.warnings[0] and "±" in freed.warnings[0]
    assert not plain.warnings


def test_the_networks_error_bars_hold_what_is_left_and_the_result_says_what_was_taken(scan):
    settings = {"size": SIZE, "samples": 8, "dip": DIPOptions(iterations=75)}
    result = ctuq.reconstruct(scan, material="uniform", **settings)
    told = result.systematics["hardening"]
    assert told.taken is not None and told.values == told.taken and abs(told.values[0] - 0.1) < 2 * told.std[0] < 0.1
    text = next(text for text in errors_told(result) if "hardening" in text)
    assert "95 % interval" in text and "of one material" in text
    assert result.std_rays is not None and (result.std > result.std_rays).mean() > 0.9
    assert made_by(result, scan, ReconstructOptions(material="uniform", **settings))
    assert not made_by(result, scan, ReconstructOptions(**settings))


def test_what_the_assumption_contradicts_is_refused_or_told(scan):
    def walls(x, y):
        r = np.hypot(x, y)
        return (r < 0.75) & (r > 0.65)

    def two(x, y):
        return 1.0 * disc(x, y) - 0.4 * (np.hypot(x - 0.1, y) < 0.4)

    with pytest.raises(InputError, match="pixels inside of it"):
        hardened(scan_of(walls), SIZE, CPU)
    with pytest.raises(InputError, match="beyond the detector"):
        hardened(replace(scan_of(disc, columns=12), grid=None, truth=None), SIZE, CPU)
    try:
        sentences = hardened(scan_of(two), SIZE, CPU).sentences()
    except InputError as refused:
        assert "not of one material" in str(refused)
    else:
        assert any("second material" in text for text in sentences)
    assert not any("second material" in text for text in hardened(scan, SIZE, CPU).sentences())


def test_stacks_and_names_that_there_are_not_are_refused():
    with pytest.raises(InputError, match="material 'steel'"):
        ReconstructOptions(material="steel")
    geometry = Parallel3D(angles=np.arange(6.0) / 2, rows=2, columns=20, pixel=1.0, row_pixel=1.0)
    stack = VolumeScan(np.zeros(geometry.shape, np.float32), geometry)
    with pytest.raises(InputError, match="single slices"):
        reconstruct_stack(stack, options=ReconstructOptions(material="uniform", size=16))
