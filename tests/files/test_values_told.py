"""Values that were cut off, or divided by each view's own largest, and other habits of those who save them."""

import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.files import read, read_volume
from ctuq.files.sidecar import read_sidecar
from ctuq.tomo.geometry import ParallelBeam, VolumeGrid
from ctuq.tomo.phantoms import ellipses
from ctuq.tomo.simulate import RelativeNoise, simulate

GEOMETRY = "pixel: 1\naxis_column: 21.5\nangles: {first: 0, step: 6, count: 30}\n"
LOG, COUNTS = "kind: parallel\nvalues: log\n", "kind: parallel\nvalues: counts\nflat: 20000\ndark: 0\n"


@pytest.fixture(scope="module")
def integrals():
    beam = ParallelBeam(angles=np.deg2rad(np.arange(0, 180, 6.0)), columns=44, pixel=1.0)
    grid, rng = VolumeGrid((32, 32), 1.0), np.random.default_rng(0)
    return simulate(
        ellipses(64, np.random.default_rng(3)), beam, grid, RelativeNoise(0.02), rng=rng, attenuation=0.1
    ).projections


def told(tmp_path, values, kind=LOG):
    np.save(tmp_path / "scan.npy", values)
    (tmp_path / "scan.yaml").write_text(kind + GEOMETRY)
    return read(tmp_path / "scan.npy").warnings


def said(texts, words):
    return [text for text in texts if words in text]


def test_line_integrals_that_are_cut_off_are_told(tmp_path, integrals):
    assert not said(told(tmp_path, integrals), "cut off")
    for share in (0.6, 0.85):
        assert len(said(told(tmp_path, np.minimum(integrals, share * integrals.max())), "the largest value")) == 1
    # Of few levels many rays share one; they do not pile up at the last.
    assert not said(told(tmp_path, np.round(integrals, 1)), "cut off")


def test_counts_at_a_floor_are_told_and_dead_ones_are_not(tmp_path, integrals):
    counts = np.random.default_rng(1).poisson(20000 * np.exp(-integrals)).astype(np.uint16)
    assert not said(told(tmp_path, counts, COUNTS), "cut off")
    floor = np.uint16(np.quantile(counts, 0.1))
    assert len(said(told(tmp_path, np.maximum(counts, floor), COUNTS), "the smallest value")) == 1
    counts[3] = 0
    assert not said(told(tmp_path, counts, COUNTS), "cut off")


def test_views_that_are_divided_by_their_own_largest_are_told(tmp_path, integrals):
    texts = told(tmp_path, integrals / integrals.max(axis=1, keepdims=True))
    assert len(said(texts, "divided by its own")) == 1 and not said(texts, "cut off")


def test_sums_that_differ_and_rows_that_go_to_and_fro_are_told_by_the_reader(tmp_path, integrals):
    uneven = integrals * np.linspace(0.7, 1.3, 30)[:, None]
    assert len(said(told(tmp_path, uneven), "sums over the detector differ")) == 1
    mirrored = integrals.copy()
    mirrored[1::2] = mirrored[1::2, ::-1]
    assert len(said(told(tmp_path, mirrored), "every second view is mirrored")) == 1


def test_a_kind_is_known_in_capitals_and_a_cone_by_its_two_distances(tmp_path, integrals):
    assert told(tmp_path, integrals, LOG.replace("parallel", "Parallel")) == told(tmp_path, integrals)
    with pytest.raises(InputError, match="a cone is a fan, with its two distances"):
        told(tmp_path, integrals, LOG.replace("parallel", "cone"))


def test_views_along_the_last_of_three_axes_are_not_to_be_transposed(tmp_path, integrals):
    np.save(tmp_path / "rows.npy", np.repeat(integrals[None, :, :20], 12, axis=0).transpose(0, 2, 1))
    (tmp_path / "rows.yaml").write_text(LOG + GEOMETRY.replace("21.5", "10"))
    with pytest.raises(InputError, match=r"save the array as \(view, row, column\)"):
        read(tmp_path / "rows.npy")


def test_a_number_for_the_flat_is_no_picture_among_the_angles(tmp_path, integrals):
    counts = (20000 * np.exp(-integrals)).astype(np.uint16)
    with pytest.raises(InputError, match="29 projections but 30 angles; check both"):
        told(tmp_path, counts[1:], COUNTS.replace("dark: 0\n", ""))


def test_pictures_on_their_side_are_told(tmp_path, integrals):
    sizes = np.array([0.1, 0.3, 0.6, 1, 0.9, 0.5, 0.4, 0.2, 0.1, 0.05])
    rows = (sizes[:, None, None] * integrals).transpose(1, 0, 2)
    for name, pictures, column in (("up", rows, 21.5), ("side", rows.transpose(0, 2, 1), 4.5)):
        np.save(tmp_path / f"{name}.npy", np.ascontiguousarray(pictures))
        (tmp_path / f"{name}.yaml").write_text(LOG + GEOMETRY.replace("21.5", str(column)) + "stack: projections\n")
        found = said(read_volume(tmp_path / f"{name}.npy").warnings, "lie on their side")
        assert len(found) == (name == "side")


def test_values_that_are_stated_wrongly_are_told(tmp_path, integrals):
    transmission = LOG.replace("log", "transmission")
    assert len(said(told(tmp_path, integrals, transmission), "said to be transmission but are smallest")) == 1
    assert not said(told(tmp_path, np.exp(-integrals), transmission), "said to be")
    assert len(said(told(tmp_path, np.exp(-integrals)), "said to be line integrals but are largest")) == 1
    assert not said(told(tmp_path, integrals), "said to be")


def test_logarithms_of_counts_are_no_line_integrals(tmp_path, integrals):
    profile = 20000 * (1 + 0.15 * np.cos(np.arange(44) / 10))
    counts = np.random.default_rng(1).poisson(profile * np.exp(-integrals))
    assert len(said(told(tmp_path, np.log(counts)), "as logarithms of counts are")) == 1
    # Line integrals of a cut object, of one in arbitrary units, and of a shell whose inside is seen alone.
    shell = 4 + 0.5 * np.abs(np.linspace(-1, 1, 44)) + np.random.default_rng(2).normal(0, 0.3, integrals.shape)
    for right in (integrals[:, 10:34], 100 * integrals, shell):
        values = np.zeros_like(integrals) + right if right.shape[1] == 44 else np.repeat(right, 2, axis=1)[:, 2:46]
        assert not said(told(tmp_path, values), "logarithms of counts")


@pytest.mark.parametrize(
    ("word", "kind"), [("line integrals", "log"), ("Line  Integrals", "log"), ("raw counts", "counts"), ("LOG", "log")]
)
def test_the_words_that_info_prints_are_taken(tmp_path, word, kind):
    (tmp_path / "g.yml").write_text(f"kind: parallel\nvalues: {word}\n")
    assert read_sidecar(tmp_path / "g.yml").values == kind
