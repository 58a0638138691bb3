"""What is told of rays that are too few or that somebody set to 0."""

from dataclasses import replace

import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.pipeline.enough import told_of_rays
from ctuq.tomo.simulate import phantom_scan

ANGLES = np.arange(20) * np.pi / 20


@pytest.fixture(scope="module")
def scan():
    return phantom_scan("rectangles", 32, ANGLES, noise=0.02, seed=0)


def with_rays(scan, projections):
    return replace(scan, projections=projections.astype(np.float32))


def test_air_that_was_set_to_zero_is_told(scan):
    masked = with_rays(scan, np.where(scan.projections < 0.1 * scan.projections.max(), 0, scan.projections))
    (told,) = told_of_rays(masked)
    assert told.startswith(f"{np.mean(masked.projections == 0):.0%} of the rays are exactly 0")


def test_noise_and_negative_values_that_were_cut_off_are_not(scan):
    assert told_of_rays(scan) == ()
    cut = with_rays(scan, scan.projections.clip(0))
    assert np.mean(cut.projections == 0) > 0.2
    assert told_of_rays(cut) == ()


def test_rays_of_no_weight_are_no_air(scan):
    weights = (scan.projections > 0.1 * scan.projections.max()).astype(np.float32)
    masked = with_rays(replace(scan, weights=weights), scan.projections * weights)
    assert not any("exactly 0" in text for text in told_of_rays(masked))


def test_hardly_a_ray_is_refused(scan):
    weights = np.zeros_like(scan.projections)
    weights[0, :9] = 1
    with pytest.raises(InputError, match="10 at least"):
        told_of_rays(replace(scan, weights=weights))
