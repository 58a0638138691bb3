"""Scans whose flats tell the noise of counts, or do not, as they are read."""

import re
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.files import read, read_volume
from ctuq.files.assemble import assemble
from ctuq.files.formats.raw import Raw
from ctuq.files.noise import law_of

VIEWS, COLUMNS, DARK, GAIN, ELECTRONIC = 60, 160, 100.0, 2.0, 15.0
TOLD, AS_BEFORE = "Rays are weighted by the noise", "The flats do not say"


def _frames(mean, rng):
    return DARK + GAIN * rng.poisson(mean / GAIN) + ELECTRONIC * rng.standard_normal(np.shape(mean))


def _scanner(seed=0, frames=10, views_of=1, flats_of=1, rows=()):
    rng, x = np.random.default_rng(seed), np.linspace(-1, 1, COLUMNS)
    turn = np.linspace(0, np.pi, VIEWS, endpoint=False)[:, None]
    p = 3 * np.sqrt(np.maximum(1 - ((x - 0.2 * np.cos(turn)) / 0.6) ** 2, 0))
    beam = 1000 * (1 - 0.3 * x**2)
    seen = np.broadcast_to((beam * np.exp(-p)).reshape(VIEWS, *(1 for _ in rows), COLUMNS), (VIEWS, *rows, COLUMNS))
    lit, unlit = (np.broadcast_to(level, (frames, *rows, COLUMNS)) for level in (beam, 0 * beam))
    counts = np.mean([_frames(seen, rng) for _ in range(views_of)], 0)
    return counts, np.mean([_frames(lit, rng) for _ in range(flats_of)], 0), _frames(unlit, rng)


def _raw(counts, flats, darks, **more):
    fields = {"kind": "parallel", "angles": np.arange(VIEWS) * np.pi / VIEWS, "pixel": 0.1, "axis_column": (COLUMNS - 1) / 2}
    return Raw("made up", counts, "counts", fields, flats=flats, darks=darks, stated=True, **more)


def test_a_scan_says_what_its_flats_told_and_dim_rays_weigh_less():
    raw = _raw(*_scanner())
    scan, plain = (assemble(each, "scan", "").scan for each in (raw, replace(raw, noise=None)))
    told = [text for text in scan.warnings if TOLD in text]
    assert len(told) == 1 and "10 flats and 10 darks" in told[0] and "correlated" not in told[0]
    assert not any(TOLD in text or AS_BEFORE in text for text in plain.warnings)
    p, used = plain.projections, (scan.weights > 0) & (plain.weights > 0)
    dim, bright = used & (p > 2.5), used & (p < 0.1)
    share = [(w[dim].mean() / w[bright].mean()) for w in (scan.weights, plain.weights)]
    # S^2 / (S + 112) over S, at about 60 and 850 counts.
    assert share[0] / share[1] == pytest.approx((60 / 172) / (850 / 962), rel=0.15)
    np.testing.assert_allclose(scan.projections[used & (p < 1)], p[used & (p < 1)])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c, f, d: (c, np.repeat(f[:1], 6, 0), d), "fewer than two differ"),
        (lambda c, f, d: (c, f, None), "not clearly above 0|too uncertain"),
        (lambda c, f, d: (_scanner(1, views_of=8)[0], f, d), "where the beam is brightest the projections' variance is 0.1"),
        (lambda c, f, d: (c, _scanner(1, flats_of=2)[1], d), "where the beam is brightest the projections' variance is"),
        (lambda c, f, d: (c, _scanner(1, flats_of=20)[1], d), "not clearly above 0"),
    ],
    ids=["copies", "no darks", "averaged views", "flats of two", "flats of twenty"],
)
def test_where_flats_tell_no_law_all_stays_and_that_is_said(change, why):
    raw = _raw(*change(*_scanner()))
    scan, plain = (assemble(each, "scan", "").scan for each in (raw, replace(raw, noise=None)))
    np.testing.assert_array_equal(scan.weights, plain.weights)
    np.testing.assert_array_equal(scan.projections, plain.projections)
    assert [text for text in scan.warnings if AS_BEFORE in text and re.search(why, text)]


@pytest.mark.parametrize("name", ["flats", "darks"])
def test_frames_of_another_width_are_refused_by_what_they_are(name):
    raw = _raw(*_scanner())
    with pytest.raises(InputError, match="do not have the same number of columns"):
        assemble(replace(raw, **{name: getattr(raw, name)[:, :-3]}), "scan", "")


def test_one_flat_is_no_doubt_and_a_step_says_so():
    counts, flats, darks = _scanner()
    scan = assemble(_raw(counts, flats[:1], darks), "scan", "").scan
    assert not any(AS_BEFORE in text or TOLD in text for text in scan.warnings)
    assert any("one flat" in step for step in scan.provenance.steps)


@pytest.mark.parametrize("unit", ["uint16", "share"])
def test_the_law_is_that_of_the_files_unit(unit):
    counts, flats, darks = _scanner()
    law = law_of(_raw(counts, flats, darks))[0]
    factor = 1.0 if unit == "uint16" else 1e-3
    scaled = (np.round(a).astype(np.uint16) if unit == "uint16" else factor * a for a in (counts, flats, darks))
    other = law_of(_raw(*scaled))[0]
    assert law is not None and other is not None
    assert other.gain == pytest.approx(factor * law.gain, rel=0.02)
    assert other.ratio == pytest.approx(factor * law.ratio, rel=0.02)


def test_columns_that_somebody_called_bad_tell_nothing():
    counts, flats, darks = _scanner()
    noisy = flats.copy()
    noisy[:, :60] += 200 * np.random.default_rng(3).standard_normal((10, 60))
    bad = np.arange(COLUMNS) < 60
    law = law_of(_raw(counts, noisy, darks, bad_columns=bad))[0]
    assert law is not None and abs(law.gain - GAIN) < 4 * law.gain_error and law.columns <= 100


def test_all_rows_of_a_volume_are_weighted_by_the_law_of_the_middle_one(tmp_path):
    counts, flats, darks = _scanner(rows=(3,))
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        group = file.create_group("exchange")
        for name, frames in (("data", counts), ("data_white", flats), ("data_dark", darks)):
            group[name] = np.round(frames).astype(np.uint16)
        group["theta"] = np.arange(VIEWS) * 180 / VIEWS
    column = (COLUMNS - 1) / 2
    scan, middle = read_volume(tmp_path / "scan.h5", axis_column=column), read(tmp_path / "scan.h5", axis_column=column)
    told = [text for text in scan.warnings if "noise" in text]
    assert told == [text for text in middle.warnings if "noise" in text] and len(told) == 1 and TOLD in told[0]
    assert scan.weights is not None and middle.weights is not None
    used = (scan.weights[1] > 0) & (middle.weights > 0)
    share = scan.weights[1][used] / middle.weights[used]
    np.testing.assert_allclose(share, share[0], rtol=1e-4)
    # Each row by its own law would differ by the error of a law.
    mean = [scan.weights[row][scan.projections[row] > 2.5].mean() for row in range(3)]
    np.testing.assert_allclose(mean, mean[1], rtol=0.05)
