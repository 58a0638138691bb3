"""Parts of one scan in files of their own: their rays are weighed in one unit."""

import numpy as np
import pytest

from ctuq.files import read
from ctuq.tomo.geometry import ParallelBeam, VolumeGrid
from ctuq.tomo.phantoms import ellipses
from ctuq.tomo.simulate import RelativeNoise, simulate

ANGLES = np.arange(0, 180, 6.0)


@pytest.fixture(scope="module")
def integrals():
    beam = ParallelBeam(angles=np.deg2rad(ANGLES), columns=44, pixel=1.0)
    rng = np.random.default_rng(0)
    grid, noise = VolumeGrid((32, 32), 1.0), RelativeNoise(0.0)
    return simulate(ellipses(64, np.random.default_rng(3)), beam, grid, noise, rng=rng, attenuation=0.03).projections


def saved(folder, name, rays, angles, more):
    np.save(folder / f"{name}.npy", rays)
    degrees = ", ".join(f"{angle:g}" for angle in angles)
    (folder / f"{name}.yaml").write_text(f"kind: parallel\npixel: 1\naxis_column: 21.5\nangles: [{degrees}]\n{more}")
    return folder / f"{name}.npy"


def counts(folder, name, integrals, views, flat):
    values = np.random.default_rng(flat).poisson(flat * np.exp(-integrals[views]))
    return saved(folder, name, values, ANGLES[views], f"values: counts\nflat: {flat}\ndark: 0\n")


def test_parts_of_few_and_of_many_counts_are_worth_what_they_counted(tmp_path, integrals):
    few, many = slice(0, 15), slice(15, 30)
    scan = read([counts(tmp_path, "few", integrals, few, 200), counts(tmp_path, "many", integrals, many, 20000)])
    # The variance of a line integral is one over its counts.
    times = scan.weights[many].mean() / scan.weights[few].mean()
    expected = 100 * np.exp(-integrals[many]).mean() / np.exp(-integrals[few]).mean()
    assert times == pytest.approx(expected, rel=0.1)
    assert scan.weights[scan.weights > 0].mean() == pytest.approx(1, rel=1e-5)
    assert not any("weighed by" in text for text in scan.warnings)


def test_alike_parts_are_weighed_as_one_file_is(tmp_path, integrals):
    parts = [counts(tmp_path, f"part{n}", integrals, slice(n, 30, 2), 5000) for n in (0, 1)]
    scan = read(parts)
    np.testing.assert_allclose(scan.geometry.angles, np.deg2rad(ANGLES), atol=1e-6)
    expected = np.exp(-integrals)
    assert np.corrcoef(scan.weights.ravel(), expected.ravel())[0, 1] > 0.95


def test_parts_whose_rays_are_weighed_by_different_things_are_told(tmp_path, integrals):
    logs = saved(tmp_path, "log", integrals[:15], ANGLES[:15], "values: log\n")
    scan = read([logs, counts(tmp_path, "counts", integrals, slice(15, 30), 5000)])
    assert sum("weighed by different things (counts and nothing)" in text for text in scan.warnings) == 1
    assert scan.weights[:15].mean() == pytest.approx(scan.weights[15:].mean(), rel=1e-4)
    other = saved(tmp_path, "log2", integrals[15:], ANGLES[15:], "values: log\n")
    assert read([logs, other]).weights is None
