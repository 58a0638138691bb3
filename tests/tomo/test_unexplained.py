"""Views in an order of their own are explained by no object, and that is told."""

from dataclasses import replace

import numpy as np
import pytest

import ctuq
from ctuq.files import demo_scan
from ctuq.files.plausible import doubts_of_angles
from ctuq.tomo.geometry import FanBeam, ParallelBeam, VolumeGrid
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.simulate import RelativeNoise, simulate
from ctuq.tomo.turns import sorted_as_text
from ctuq.tomo.unexplained import doubt_of_misfit


def scan(phantom="ellipses", *, fan=False, views=30, noise=0.02, columns=44, span=360):
    angles = np.deg2rad(np.arange(views) * span / views)
    kind = {"angles": angles, "columns": columns}
    beam = FanBeam(**kind, pixel=2.0, source_to_axis=60.0, source_to_detector=120.0) if fan else ParallelBeam(**kind, pixel=1.0)
    image = PHANTOMS[phantom](128, np.random.default_rng(3))
    return simulate(image, beam, VolumeGrid((32, 32), 1.0), RelativeNoise(noise), rng=np.random.default_rng(0), finer=4)


def ordered(scan, order):
    return replace(scan, projections=scan.projections[order])


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("fan", [False, True])
@pytest.mark.parametrize("phantom", list(PHANTOMS))
def test_of_a_scan_that_is_told_right_nothing_is_said(phantom, fan, noise):
    for views, span in ((12, 180 + 180 * fan), (40, 360), (30, 100 + 100 * fan)):
        assert doubt_of_misfit(scan(phantom, fan=fan, noise=noise, views=views, span=span)) is None


@pytest.mark.parametrize("fan", [False, True])
@pytest.mark.parametrize("phantom", list(PHANTOMS))
def test_views_in_an_order_of_their_own_are_told(phantom, fan):
    right = scan(phantom, fan=fan, views=40)
    told = doubt_of_misfit(ordered(right, np.random.default_rng(1).permutation(40)))
    assert told is not None and "order of the views" in told


@pytest.mark.parametrize("first", [0, 1])
def test_views_that_are_sorted_as_text_are_named(first):
    right = scan(views=40)
    wrong = ordered(right, np.array(sorted(range(first, first + 40), key=str)) - first)
    assert sorted_as_text(right) is None and len(sorted_as_text(wrong)) == 2
    assert "10 before 2" in doubts_of_angles(wrong)[0]
    walnut = ctuq.read(demo_scan())
    assert doubt_of_misfit(walnut) is None and sorted_as_text(walnut) is None
    assert "10 before 2" in doubts_of_angles(ordered(walnut, sorted(range(walnut.n_angles), key=str)))[0]


def test_what_moved_while_it_was_measured_is_told_by_the_reader(tmp_path):
    right = scan("rectangles", views=40, noise=0.01)
    moved = right.projections.copy()
    moved[20:] = np.roll(moved[20:], 2, axis=1)
    degrees = np.rad2deg(right.geometry.angles)
    (tmp_path / "s.yaml").write_text("kind: parallel\n")

    def read(rays):
        np.savez(tmp_path / "s.npz", sinogram=rays, angles_deg=degrees, pixel=1.0)
        return ctuq.read(tmp_path / "s.npz", geometry=tmp_path / "s.yaml").warnings

    assert not any("object" in text for text in read(right.projections))
    told = read(moved)
    assert any("No object explains" in text or "centre of mass strays" in text for text in told), told
    shuffled = read(scan(views=40).projections[np.random.default_rng(0).permutation(40)])
    assert sum("No object explains" in text or "centre of mass" in text for text in shuffled) == 1, shuffled


def test_where_little_is_known_nothing_is_said():
    wrong = ordered(scan(views=40), np.random.default_rng(1).permutation(40))
    assert doubt_of_misfit(wrong.select(range(0, 40, 5))) is None
    assert doubt_of_misfit(replace(wrong, projections=0 * wrong.projections)) is None
    beyond = replace(wrong, projections=wrong.projections[:, 12:32], geometry=replace(wrong.geometry, columns=20))
    assert doubt_of_misfit(beyond) is None
    weights = np.zeros_like(wrong.projections)
    weights[:8] = 1
    assert doubt_of_misfit(replace(wrong, weights=weights)) is None
