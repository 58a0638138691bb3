"""Sums of views over the detector: what every parallel view of one object has alike."""

from dataclasses import replace

import numpy as np
import pytest

from ctuq.tomo.geometry import FanBeam, ParallelBeam, VolumeGrid
from ctuq.tomo.phantoms import ellipses, rectangles
from ctuq.tomo.simulate import RelativeNoise, simulate
from ctuq.tomo.sums import doubt_of_sums, lies_on_its_side

ANGLES = np.deg2rad(np.arange(0, 180, 6.0))


def scan(*, noise=0.02, columns=48, phantom=ellipses, fan=False):
    """Seen whole by 48 columns."""
    kind = {"angles": ANGLES, "columns": columns}
    beam = FanBeam(**kind, pixel=2.0, source_to_axis=80.0, source_to_detector=160.0) if fan else ParallelBeam(**kind, pixel=1.0)

    def make(size):
        return phantom(size, np.random.default_rng(1))

    return simulate(make, beam, VolumeGrid((32, 32), 1.0), RelativeNoise(noise), rng=np.random.default_rng(0), attenuation=0.1)


def times(one, factors):
    return replace(one, projections=(one.projections * factors[:, None]).astype(np.float32))


@pytest.mark.parametrize("phantom", [ellipses, rectangles])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
def test_of_one_object_nothing_is_said(phantom, noise):
    right = scan(noise=noise, phantom=phantom)
    assert doubt_of_sums(right) is None
    # Air that drifts is flux, which the model knows.
    drift = 0.05 * right.projections.max() * np.random.default_rng(2).standard_normal(len(ANGLES))
    assert doubt_of_sums(replace(right, projections=right.projections + np.float32(drift[:, None]))) is None


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_views_of_unequal_sums_are_told_by_how_much(noise):
    told = doubt_of_sums(times(scan(noise=noise), np.linspace(0.7, 1.3, 30)))
    assert told is not None and "differ by 0.2" in told
    assert doubt_of_sums(times(scan(noise=noise), np.linspace(0.98, 1.02, 30))) is None


def test_where_the_sums_must_not_be_alike_nothing_is_said():
    uneven = np.linspace(0.7, 1.3, 30)
    assert doubt_of_sums(times(scan(fan=True), uneven)) is None
    assert doubt_of_sums(times(scan(columns=20), uneven)) is None  # cut off at both sides
    assert doubt_of_sums(times(scan(), uneven).select(range(5))) is None
    # One view by itself is told elsewhere.
    alone = np.ones(30)
    alone[7] = 3
    assert doubt_of_sums(times(scan(), alone)) is None
    # Rays that count in a few views say nothing.
    few = np.zeros_like(scan().projections)
    few[:5] = 1
    assert doubt_of_sums(replace(times(scan(), uneven), weights=few)) is None


def test_a_square_whose_rows_are_columns_is_told():
    right = scan()
    rays = np.concatenate([right.projections, right.projections[:18, ::-1]])
    square = replace(right, projections=rays, geometry=replace(right.geometry, angles=np.deg2rad(np.arange(48) * 3.75)))
    assert doubt_of_sums(square) is None
    told = doubt_of_sums(replace(square, projections=np.ascontiguousarray(rays.T)))
    assert told is not None and "transpose: true" in told
    # A sample that comes in later and leaves before the end is not told so: its edges are air.
    gone = right.projections.copy()
    gone[:4], gone[-4:] = 0, 0
    other = doubt_of_sums(replace(right, projections=gone))
    assert other is None or "transpose" not in other


def test_pictures_on_their_side_are_told(pictures):
    upright = pictures
    assert lies_on_its_side(upright) is None
    told = lies_on_its_side(np.ascontiguousarray(upright.transpose(2, 1, 0)))
    assert told is not None and "transpose: true" in told
    assert lies_on_its_side(upright[:4]) is None and lies_on_its_side(0 * upright) is None
    round_about = np.repeat(upright[:, :1], upright.shape[1], axis=1)
    assert lies_on_its_side(round_about) is None and lies_on_its_side(round_about.transpose(2, 1, 0)) is None


@pytest.fixture
def pictures():
    """Projections (row, angle, column) of a few slices' ellipses, each of its own size, with some noise."""
    rng = np.random.default_rng(0)
    rows = [scan(noise=0.0).projections * size for size in (0.0, 0.3, 0.6, 1.0, 0.9, 0.5, 0.4, 0.1, 0.0, 0.0)]
    return np.stack(rows) + 0.01 * rng.standard_normal((10, 30, 48))


@pytest.mark.filterwarnings("error")
def test_views_without_a_ray_at_the_edges_are_summed_in_silence():
    right = scan()
    weights = np.ones(right.projections.shape, np.float32)
    weights[:, :3] = weights[:, -3:] = 0
    assert doubt_of_sums(replace(right, weights=weights)) is None
    weights[:4, :20] = 0
    weights[5, 3:20] = 0
    doubt_of_sums(replace(right, weights=weights))
