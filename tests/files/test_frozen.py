"""Frames that were stored again while the angles went on, and views that are alike without a fault."""

import numpy as np
import pytest

from ctuq.files import read, read_volume
from ctuq.tomo.geometry import ParallelBeam, VolumeGrid
from ctuq.tomo.phantoms import ellipses
from ctuq.tomo.simulate import RelativeNoise, simulate

VIEWS, COLUMNS = 40, 44
GEOMETRY = "kind: parallel\nvalues: log\npixel: 1\naxis_column: 21.5\n"
EVEN = f"angles: {{first: 0, step: 4.5, count: {VIEWS}}}\n"


def measured(noise=0.02):
    beam = ParallelBeam(angles=np.deg2rad(np.arange(VIEWS) * 4.5), columns=COLUMNS, pixel=1.0)
    rng = np.random.default_rng(0)
    phantom = ellipses(64, np.random.default_rng(3))
    scan = simulate(phantom, beam, VolumeGrid((32, 32), 1.0), RelativeNoise(noise), rng=rng, attenuation=0.1)
    return scan.projections.copy()


def scan_of(folder, values, angles=EVEN):
    np.save(folder / "scan.npy", values)
    (folder / "scan.yaml").write_text(GEOMETRY + angles)
    return read(folder / "scan.npy")


def repeats(scan):
    return [text for text in scan.warnings if "to the last digit" in text]


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_repeated_frames_are_left_out_and_told_and_the_first_is_kept(tmp_path, noise):
    values = measured(noise)
    assert not repeats(scan_of(tmp_path, values))
    values[1:7], values[20] = values[0], values[19]
    scan = scan_of(tmp_path, values)
    (text,) = repeats(scan)
    assert "7 of 40 views, first number 1 (at 4.5 degrees), repeat" in text
    np.testing.assert_array_equal(
        np.rad2deg(scan.geometry.angles).round(3), np.delete(np.arange(VIEWS) * 4.5, [*range(1, 7), 20])
    )
    values = measured(noise)
    values[20] = values[19]
    assert repeats(scan_of(tmp_path, values))[0].startswith("View 20 of 40 (at 90 degrees) repeats")


def test_views_that_are_alike_without_a_fault_stay(tmp_path):
    values = measured()
    degrees = np.arange(VIEWS) * 4.5
    values[3], degrees[3] = values[2], degrees[2]
    listed = f"angles: {degrees.tolist()}\n"
    assert not repeats(scan_of(tmp_path, values, listed))  # one view, stored twice at one angle
    round_one = np.repeat(np.sqrt(np.maximum(0, 100 - (np.arange(COLUMNS) - 21.5) ** 2))[None] / 20, VIEWS, axis=0)
    assert not repeats(scan_of(tmp_path, round_one))
    few_levels = np.round(round_one + 0.1 * (np.arange(VIEWS) // 2 % 2)[:, None] * (np.arange(COLUMNS) == 20), 1)
    assert not repeats(scan_of(tmp_path, few_levels))


def test_a_volume_leaves_repeated_frames_out_too(tmp_path):
    rng = np.random.default_rng(1)
    rows = (measured(0.0)[None] * np.array([0.9, 1, 1.1])[:, None, None]).transpose(1, 0, 2)
    rows = rows + rng.normal(0, 0.01, rows.shape)
    rows[5:9] = rows[4]
    np.save(tmp_path / "scan.npy", rows)
    (tmp_path / "scan.yaml").write_text(GEOMETRY + EVEN + "stack: projections\n")
    scan = read_volume(tmp_path / "scan.npy")
    assert scan.n_angles == VIEWS - 4 and len(repeats(scan)) == 1
