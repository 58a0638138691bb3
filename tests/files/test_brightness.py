"""How bright the rays are beside the open beam, and how steady the beam is; few counts make no false alarm."""

import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.files import read
from ctuq.tomo.geometry import ParallelBeam, VolumeGrid
from ctuq.tomo.phantoms import ellipses
from ctuq.tomo.simulate import RelativeNoise, simulate

VIEWS, COLUMNS = 30, 72
COUNTS = f"kind: parallel\npixel: 1\naxis_column: 35.5\nangles: {{first: 0, step: 6, count: {VIEWS}}}\n"


@pytest.fixture(scope="module")
def integrals():
    beam = ParallelBeam(angles=np.deg2rad(np.arange(0, 180, 6.0)), columns=COLUMNS, pixel=1.0)
    phantom = ellipses(80, np.random.default_rng(3))
    noise = RelativeNoise(0.0)
    return simulate(phantom, beam, VolumeGrid((40, 40), 1.0), noise, rng=np.random.default_rng(0), attenuation=0.04).projections


def told(folder, values, flats, kind="values: counts\n"):
    np.save(folder / "scan.npy", values)
    np.save(folder / "flat.npy", flats)
    (folder / "scan.yaml").write_text(COUNTS + kind + ("flat: flat.npy\ndark: 0\n" if "counts" in kind else ""))
    return read(folder / "scan.npy").warnings


def said(texts, *words):
    return [text for text in texts if any(word in text for word in words)]


@pytest.mark.parametrize("photons", [5, 20, 100, 300])
@pytest.mark.parametrize("frames", [2, 8])
def test_of_a_steady_beam_of_few_counts_nothing_is_said(tmp_path, integrals, photons, frames):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        texts = told(tmp_path, rng.poisson(photons * np.exp(-integrals)), rng.poisson(photons, (frames, COLUMNS)))
        assert not said(texts, "flats differ", "brightest columns", "may be flats")


def test_a_beam_that_drifts_is_told_and_flats_of_another_exposure_are(tmp_path, integrals):
    rng = np.random.default_rng(0)
    values = rng.poisson(2000 * np.exp(-integrals))
    drifting = rng.poisson(2000 * np.linspace(0.97, 1.03, 6)[:, None], (6, COLUMNS))
    (text,) = said(told(tmp_path, values, drifting), "flats differ")
    assert "by 6" in text or "by 5." in text
    assert said(told(tmp_path, values, rng.poisson(1500, (6, COLUMNS))), "The brightest columns have 1.")


def test_even_the_brightest_columns_far_below_the_open_beam_are_told(tmp_path, integrals):
    rng = np.random.default_rng(0)
    flats = np.full((1, COLUMNS), 20000.0)
    right = rng.poisson(20000 * np.exp(-integrals))
    assert not said(told(tmp_path, right, flats), "Even the brightest")
    noisy = integrals + rng.normal(0, 0.01, integrals.shape)
    for wrong in (noisy, np.exp(-noisy), right / 20):
        assert len(said(told(tmp_path, wrong, flats), "Even the brightest columns hold")) == 1


def test_transmission_in_per_cent_is_told_what_to_give(tmp_path, integrals):
    with pytest.raises(InputError, match="if it is in per cent, N is 100"):
        told(tmp_path, 100 * np.exp(-integrals), np.ones((1, COLUMNS)), "values: transmission\n")
    texts = told(tmp_path, 100 * np.exp(-integrals), np.full((1, COLUMNS), 100.0))
    assert not said(texts, "brightest columns")
    with pytest.raises(InputError) as caught:
        told(tmp_path, 20000 * np.exp(-integrals), np.ones((1, COLUMNS)), "values: transmission\n")
    assert "per cent" not in str(caught.value)


def test_columns_that_are_dead_side_by_side_are_told_unless_somebody_said_so(tmp_path, integrals):
    rng = np.random.default_rng(0)
    values, flats = rng.poisson(2000 * np.exp(-integrals)), rng.poisson(2000, (6, COLUMNS))
    values[:, 40], flats[:, 40] = 0, 0
    assert not said(told(tmp_path, values, flats), "side", "count in no view")
    values[:, 36:], flats[:, 36:] = 0, 0
    (text,) = said(told(tmp_path, values, flats), "count in no view")
    assert "Columns 36 to 71 of 72" in text
    known = f"values: counts\nbad_columns: {list(range(36, COLUMNS))}\n"
    assert not said(told(tmp_path, values, flats, known), "count in no view")
