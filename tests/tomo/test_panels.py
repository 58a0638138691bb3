"""A panel of the detector that counts otherwise than in its flats is told and made even; objects are left alone."""

from dataclasses import replace

import numpy as np
import pytest

from ctuq.tomo.geometry import ParallelBeam, VolumeGrid
from ctuq.tomo.panels import with_even_panels
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.simulate import RelativeNoise, simulate


def scan(phantom, columns=72, noise=0.02, offset=0.0):
    beam = ParallelBeam(angles=np.deg2rad(np.arange(0, 180, 4.0)), columns=columns, pixel=0.6, detector_offset=offset)
    image = 0.04 * PHANTOMS[phantom](128, np.random.default_rng(4))
    return simulate(image, beam, VolumeGrid((32, 32), 1.0), RelativeNoise(noise), rng=np.random.default_rng(1), finer=4)


@pytest.mark.parametrize("phantom", list(PHANTOMS))
@pytest.mark.parametrize(("first", "log"), [(36, 0.1), (36, -0.08), (24, 0.06)])
def test_a_panel_is_found_by_its_air_and_its_jump_and_made_even(phantom, first, log):
    sound = scan(phantom)
    uneven = replace(sound, projections=sound.projections + log * (np.arange(72) >= first))
    even = with_even_panels(uneven)
    assert f"Columns {first} to 71 read" in even.warnings[-1]
    np.testing.assert_allclose(even.projections, sound.projections, atol=0.01)


def test_the_panel_whose_air_is_not_nothing_is_the_wrong_one():
    sound = scan("rectangles")
    uneven = replace(sound, projections=sound.projections + 0.1 * (np.arange(72) < 30))
    even = with_even_panels(uneven)
    assert "Columns 0 to 29 read 0.1" in even.warnings[-1]
    np.testing.assert_allclose(even.projections, sound.projections, atol=0.01)


@pytest.mark.parametrize("phantom", list(PHANTOMS))
def test_sound_scans_and_objects_that_reach_beyond_stay_as_they_are(phantom):
    sound = scan(phantom)
    assert with_even_panels(sound) is sound
    drifting = replace(sound, projections=sound.projections + np.linspace(0, 0.2, sound.n_angles)[:, None])
    assert with_even_panels(drifting) is drifting
    cut = scan(phantom, columns=44, offset=8.0)
    assert with_even_panels(cut) is cut
    tilted = replace(sound, projections=sound.projections + np.linspace(0, 0.1, 72))
    assert with_even_panels(tilted) is tilted


def test_views_without_a_ray_that_counts_and_dead_columns_change_nothing(recwarn):
    sound = scan("rectangles")
    weights = np.ones_like(sound.projections)
    weights[3], weights[:, 0] = 0, 0
    uneven = replace(sound, projections=sound.projections + 0.1 * (np.arange(72) >= 36), weights=weights)
    assert with_even_panels(uneven) is uneven  # the air of a dead column is not known
    lost = np.ones_like(sound.projections)
    lost[3] = 0
    even = with_even_panels(replace(uneven, weights=lost))
    assert "Columns 36 to 71 read 0.1" in even.warnings[-1]
    assert not recwarn.list
