"""Scans that are made of arrays are checked as the readers check files."""

from dataclasses import replace

import numpy as np

import ctuq
from ctuq.pipeline.image.given import as_given
from ctuq.tomo import radians
from ctuq.tomo.simulate import phantom_scan

SCAN = phantom_scan("ellipses", 24, radians(np.arange(0, 180, 6.0)), noise=0.02, seed=3)


def with_values(change):
    projections = SCAN.projections.copy()
    change(projections)
    return replace(SCAN, projections=projections)


def dead(projections):
    projections[:, 12] = 0.0
    projections[:, 20] = projections.max()


def wrong_views(projections):
    projections[4] = 0.0
    projections[9] *= 3


def test_a_sound_scan_stays_itself():
    assert as_given(SCAN) is SCAN


def test_what_a_reader_has_looked_at_stays_itself():
    scan = with_values(dead)
    read = replace(scan, provenance=replace(scan.provenance, sha256="0" * 64))
    assert as_given(read) is read


def test_columns_that_never_change_count_for_nothing():
    found = as_given(with_values(dead))
    assert np.flatnonzero((found.weights == 0).any(axis=0)).tolist() == [12, 20]
    assert (found.weights[:, [0, 11, 13, 30]] == 1).all()
    assert found.warnings[-1].startswith("Columns 12, 20 of the detector never change, or")


def test_views_that_no_object_makes_count_for_nothing():
    found = as_given(with_values(wrong_views))
    assert np.flatnonzero((found.weights == 0).all(axis=1)).tolist() == [4, 9]
    assert "left out" in found.warnings[-1]


def test_images_are_as_good_as_without_the_defects_and_it_is_told():
    def error(scan):
        result = ctuq.reconstruct(scan, size=24, method="tv", uncertainty=None)
        return float(np.sqrt(np.mean((result.mean - result.truth) ** 2))), " ".join(result.warnings)

    sound, _ = error(SCAN)
    for change, words in ((dead, "never change"), (wrong_views, "left out")):
        found, told = error(with_values(change))
        assert found < 1.2 * sound and words in told


def test_a_view_whose_air_reads_more_loses_what_it_reads():
    def brighter(projections):
        projections[4] += 5 * projections.max()

    found = as_given(with_values(brighter))
    assert found.weights is None and np.abs(found.projections[4] - SCAN.projections[4]).max() < 0.05
    assert "what it reads is taken off them" in found.warnings[-1]
