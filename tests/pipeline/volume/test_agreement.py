"""Views of volumes that disagree with a slice that one row sees alone count for less in all rows."""

from dataclasses import replace

import numpy as np
import pytest

from ctuq.pipeline import ReconstructOptions, reconstruct_stack
from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.volume.job import reconstruct_volume
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.simulate import RelativeNoise
from ctuq.tomo.solids import SOLIDS, simulate_volume, solid_scan
from ctuq.tomo.space import Parallel3D

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


def helix(scan):
    return scan.geometry.raised(np.linspace(-6, 6, len(ANGLES)))


def leaning(scan):
    """Of pixels that are averaged, with some left over."""
    beam = scan.geometry
    return replace(beam, rows=2 * beam.rows + 1, columns=2 * beam.columns + 1, pixel=beam.pixel / 2, yaw=0.1, tilt=0.1)


@pytest.mark.parametrize("geometry", [helix, leaning])
def test_where_no_row_sees_a_slice_a_coarse_volume_tells_the_wrong_view(geometry):
    simple, rng = scan_of((100.0, 200.0)), np.random.default_rng(0)
    solid = SOLIDS["shells"](24, rng) * 0.05
    sound = simulate_volume(solid, geometry(simple), simple.grid, RelativeNoise(0.02), rng=rng)
    projections = sound.projections.copy()
    projections[:, 7] = np.roll(projections[:, 7], sound.geometry.columns // 6, axis=-1)
    told = [text for text in reconstructed(replace(sound, projections=projections)).warnings if "times as far" in text]
    assert len(told) == 1 and "1 of 24 views, first number 7" in told[0]
    assert not any("times as far" in text for text in reconstructed(sound).warnings)


def test_a_wrong_view_is_found_where_the_middle_row_is_dead():
    scan = scan_of((100.0, 200.0), wrong=7)
    weights, middle = np.ones_like(scan.projections), scan.geometry.rows // 2
    weights[middle - 1 : middle + 1] = 0
    told = [text for text in reconstructed(replace(scan, weights=weights)).warnings if "times as far" in text]
    assert len(told) == 1 and "1 of 24 views, first number 7" in told[0]


def test_what_a_dead_middle_row_holds_says_nothing_of_views():
    scan = scan_of((100.0, 200.0))
    projections, weights, middle = scan.projections.copy(), np.ones_like(scan.projections), scan.geometry.rows // 2
    weights[middle - 1 : middle + 1] = 0
    projections[middle - 1 : middle + 1, 7] = projections[middle - 1 : middle + 1, 7, ::-1] + 1
    result = reconstructed(replace(scan, projections=projections, weights=weights))
    assert not any("times as far from the image" in text for text in result.warnings)


@pytest.fixture(scope="module")
def plate():
    """Standing upright, seen along its faces by two views of an order by the golden ratio."""
    order = np.mod(np.arange(30) * (np.sqrt(5) - 1) / 2 * np.pi, np.pi)
    solid = np.zeros((24, 96, 96))
    solid[:, 46:50, 12:-12] = 0.05
    geometry, grid = Parallel3D(angles=order, rows=6, columns=36, pixel=1.0), VolumeGrid((6, 24, 24), 1.0)
    return simulate_volume(solid, geometry, grid, RelativeNoise(0.02), rng=np.random.default_rng(0))


@pytest.mark.parametrize("way", ["volume", "stack"])
def test_views_along_a_plate_are_sound_to_every_method_but_the_network(plate, way):
    if way == "volume":
        result = reconstruct_volume(plate, options=VolumeOptions(method="sirt", size=24, iterations=2))
    else:
        result = reconstruct_stack(plate, options=ReconstructOptions(method="sirt", size=24))
    assert not any("times as far from the image" in text for text in result.warnings)
