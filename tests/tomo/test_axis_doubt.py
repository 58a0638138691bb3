"""An axis that the rays contradict is told with its number, and one that they do not is left in peace."""

from dataclasses import replace

import numpy as np
import pytest

from ctuq.tomo.axis import axis_column, with_axis_column
from ctuq.tomo.axis_doubt import contradicting_axis, doubt_of_axis
from ctuq.tomo.geometry import FanBeam, ParallelBeam, VolumeGrid
from ctuq.tomo.phantoms import ellipses
from ctuq.tomo.scan import Scan
from ctuq.tomo.simulate import RelativeNoise, simulate

GRID = VolumeGrid((32, 32), 1.0)


def _parallel(degrees, views, columns=46, **more):
    return ParallelBeam(angles=np.deg2rad(np.linspace(0, degrees, views, endpoint=False)), columns=columns, pixel=1.0, **more)


HALF, FULL, ARC = _parallel(180, 24), _parallel(360, 24), _parallel(90, 24)
FAN = FanBeam(angles=FULL.angles, columns=50, pixel=2.0, source_to_axis=90.0, source_to_detector=180.0)
CUT, BESIDE = _parallel(180, 30, columns=22), _parallel(360, 40, columns=34, detector_offset=10.0)


def _scan(beam, off=0.0, noise=0.02, seed=0):
    """A scan whose geometry has the axis so many columns beside where it is."""
    rng = np.random.default_rng(seed)
    scan = simulate(ellipses(64, rng), beam, GRID, RelativeNoise(noise), rng=rng, attenuation=0.03)
    return replace(scan, geometry=with_axis_column(beam, axis_column(beam) + off), truth=None, grid=None)


@pytest.mark.parametrize("off", [-10.0, 1.5, 10.0])
@pytest.mark.parametrize("beam", [HALF, FULL, FAN], ids=["half-turn", "full turn", "fan"])
def test_an_axis_columns_off_is_contradicted_by_one_that_is_right(beam, off):
    scan = _scan(beam, off)
    found = contradicting_axis(scan)
    assert found is not None and found.column == pytest.approx(axis_column(beam), abs=0.2)
    text = doubt_of_axis(scan, found)
    assert f"column {axis_column(beam) + off:.1f}" in text and f"axis_column: {found.column:.1f}" in text


def _spoilt(scan, how):
    y, rng = scan.projections.astype(float), np.random.default_rng(1)
    top = y.max()
    changed = {
        "": y,
        "noise": y + 0.3 * y.mean() * rng.standard_normal(y.shape),
        "background": y + 0.05 * top,
        "gains": y + 0.1 * top * rng.standard_normal(y.shape[1]),
        "hardening": y - 0.15 * y**2,
    }
    return replace(scan, projections=changed[how].astype(np.float32))


@pytest.mark.parametrize("how", ["", "noise", "background", "gains", "hardening"])
@pytest.mark.parametrize("beam", [HALF, ARC, FAN, CUT, BESIDE], ids=["half-turn", "arc", "fan", "cut", "beside"])
def test_an_axis_that_is_right_is_not_doubted_whatever_else_is_wrong(beam, how):
    assert contradicting_axis(_spoilt(_scan(beam), how)) is None


def test_half_a_column_is_left_to_the_model():
    assert contradicting_axis(_scan(HALF, 0.5)) is None


def test_where_nothing_tells_the_axis_nothing_is_contradicted():
    assert contradicting_axis(_scan(HALF, 10.0).select([0, 12])) is None
    noise = np.random.default_rng(0).standard_normal(HALF.shape).astype(np.float32)
    assert contradicting_axis(Scan(noise, HALF)) is None
    assert contradicting_axis(Scan(np.zeros(HALF.shape, np.float32), HALF)) is None


@pytest.mark.parametrize("off", [6.0, 3.0, -6.5])
def test_an_axis_a_part_of_a_coarse_column_off_is_contradicted_on_a_wide_detector(off):
    # The dense rim of this disc ends just so that the coarse search explains it better beside the axis than at it.
    wide = ParallelBeam(angles=np.deg2rad(np.linspace(0, 180, 24, endpoint=False)), columns=512, pixel=1.0)
    across, angles = np.arange(512) - 249.5, wide.angles[:, None]

    def disc(radius, x=0.0, y=0.0):
        beside = across - x * np.cos(angles) - y * np.sin(angles)
        return 2 * np.sqrt(np.clip(radius**2 - beside**2, 0, None))

    rays = 0.025 * disc(186) - 0.02 * disc(182) + 0.01 * disc(30, 50, 30)
    rays += 0.005 * np.random.default_rng(0).standard_normal(rays.shape)
    found = contradicting_axis(Scan(rays.astype(np.float32), with_axis_column(wide, 249.5 + off)))
    assert found is not None and found.column == pytest.approx(249.5, abs=0.2)
    assert found.misfit * 4 < found.misfit_at_start
