"""Outer columns beside air that are dark in all views alike are the edge of the beam; whatever an object makes is kept."""

from dataclasses import replace

import numpy as np
import pytest

from ctuq.tomo.axis import find_axis
from ctuq.tomo.geometry import FanBeam, ParallelBeam
from ctuq.tomo.scan import Scan
from ctuq.tomo.still_columns import without_still_columns

N, AXIS = 240, 112.0
HALF = ParallelBeam(angles=np.deg2rad(np.arange(0, 180, 4.0)), columns=N, pixel=1.0, detector_offset=119.5 - AXIS)
COLUMNS = np.arange(N)


def _discs(beam, *discs):
    """Line integrals of discs (x, y, radius, attenuation)."""
    across, turned, rays = COLUMNS - AXIS, beam.angles[:, None], np.zeros(beam.shape)
    for x, y, radius, attenuation in discs:
        beside = across - x * np.cos(turned) - y * np.sin(turned)
        rays += 2 * attenuation * np.sqrt(np.clip(radius**2 - beside**2, 0, None))
    return rays


def _scan(rays, beam=HALF, noise=0.01):
    noise = noise * np.random.default_rng(0).standard_normal(rays.shape)
    return Scan((rays + noise).astype(np.float32), beam)


BODY = ((5.0, -8.0, 40.0, 0.01), (20.0, 10.0, 8.0, 0.02))
SLIT = 2.0 / (1 + np.exp((COLUMNS - 10) / 3.0)) + 1.5 / (1 + np.exp((229 - COLUMNS) / 3.0))


def test_the_edge_of_the_beam_counts_for_nothing_is_told_and_the_axis_is_found_beside_it():
    given = _scan(_discs(HALF, *BODY) + SLIT)
    scan = without_still_columns(given)
    assert scan.weights is not None
    out = np.flatnonzero((scan.weights == 0).all(axis=0))
    assert 15 <= np.sum(out < N // 2) <= 30 and 15 <= np.sum(out > N // 2) <= 30
    assert not scan.projections[:, out].any() and (scan.weights[:, 40:200] == 1).all()
    (said,) = scan.provenance.warnings
    assert said.startswith(f"Columns 0 to {out[out < N // 2].max()} and {out[out > N // 2].min()} to 239 of the detector")
    assert "up to 1.9 in all views alike" in said
    middle = replace(scan, geometry=replace(HALF, detector_offset=0.0))
    found = find_axis(middle)
    assert found.reliable and found.column == pytest.approx(AXIS, abs=0.3)
    assert without_still_columns(scan) is scan


def test_rays_that_count_for_nothing_already_do_not_hide_it():
    weights = np.ones(HALF.shape, np.float32)
    weights[3] = weights[:, 2] = weights[7, 5] = 0
    scan = without_still_columns(replace(_scan(_discs(HALF, *BODY) + SLIT), weights=weights))
    assert scan.weights is not None and (scan.weights[:, :12] == 0).all() and (scan.weights[3] == 0).all()


ROUND = (0.0, 0.0)


@pytest.mark.parametrize(
    "discs",
    [
        BODY,
        ((5.0, -8.0, 150.0, 0.01),),  # reaches beyond the detector
        ((*ROUND, 150.0, 0.01), (*ROUND, 145.0, -0.01), *BODY),  # in a tube whose wall is seen at the edges, all views alike
        ((*ROUND, 120.0, 0.05), (*ROUND, 118.0, -0.05), *BODY),
        ((*ROUND, 50.0, 0.01),),  # nothing varies from view to view
        ((100.0, 0.0, 12.0, 0.02), (-40.0, 5.0, 20.0, 0.02)),  # a wire far out comes to the edge in some views
    ],
    ids=["whole", "cut", "wide tube", "thin tube", "round", "far out"],
)
def test_what_an_object_makes_is_kept(discs):
    scan = _scan(_discs(HALF, *discs))
    assert without_still_columns(scan) is scan


def test_an_arc_tells_nothing_as_what_is_far_out_may_stay_there():
    arc = replace(HALF, angles=HALF.angles[:20])
    scan = _scan(_discs(arc, *BODY) + SLIT, arc)
    assert without_still_columns(scan) is scan


def test_a_fan_of_a_full_turn():
    fan = FanBeam(
        angles=np.deg2rad(np.arange(0, 360, 8.0)), columns=N, pixel=1.0, source_to_axis=5e4, source_to_detector=5e4 + 1
    )
    scan = without_still_columns(_scan(_discs(fan, *BODY) + SLIT, fan))
    assert scan.provenance.warnings
