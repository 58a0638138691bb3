"""The experiment on defects: where they are, and curves with closed forms."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.defects import __main__ as defects
from experiments.defects.drawing import areas, roc
from experiments.defects.objects import ATTENUATION, subject_of


def test_a_defect_lacks_what_it_is_told_to_lack_and_no_other_place_does():
    subject = subject_of("rectangles", 1, 0.5)
    off = (subject.discs * (subject.scan.truth - subject.nominal)).sum((1, 2))
    level = (subject.discs * subject.nominal).sum((1, 2))
    assert len(off) >= 2 and subject.defects.sum() == len(off) // 2
    np.testing.assert_allclose(off[~subject.defects], 0, atol=1e-6 * ATTENUATION)
    assert (off[subject.defects] < -0.25 * level[subject.defects]).all()
    np.testing.assert_allclose(subject.discs.sum((1, 2)), 1)
    again = subject_of("rectangles", 1, 0.5)
    np.testing.assert_array_equal(again.scan.projections, subject.scan.projections)


def test_areas_under_the_curve_are_shares_of_pairs_in_order():
    rng = np.random.default_rng(0)
    found, scores = rng.random(40) < 0.4, np.round(rng.normal(size=40), 1)
    pairs = scores[found][:, None] - scores[~found][None]
    assert roc(found, scores)[2] == pytest.approx(np.mean(pairs > 0) + 0.5 * np.mean(pairs == 0))
    assert roc(found, found.astype(float))[2] == 1 and roc(found, np.zeros(40))[2] == 0.5


def test_the_gain_is_the_difference_and_its_error_that_of_pairs():
    rng = np.random.default_rng(1)
    rows = [
        {"phantom": "a", "seed": s, "defect": d, "difference": d + rng.normal() * (1 + s % 3), "std": 1.0 + s % 3}
        for s in range(12)
        for d in (0, 1, 0, 1)
    ]
    found = areas(rows)
    assert found[2, 0] == pytest.approx(found[1, 0] - found[0, 0]) and (found[:, 1] > 0).all()
    same = areas([row | {"std": 1.0} for row in rows])
    assert same[2].tolist() == [0, 0]


def test_a_map_that_ranks_as_the_errors_do_has_no_area_between():
    rng = np.random.default_rng(2)
    mean, truth = np.zeros((20, 20)), rng.normal(size=(20, 20))

    def area(std):
        return defects.sparsification(SimpleNamespace(mean=mean, truth=truth, std=std))

    assert area(np.abs(truth)) == pytest.approx(0, abs=1e-12)
    assert 0 < area(np.abs(truth) + rng.random((20, 20))) < area(rng.random((20, 20)))


def test_rows_go_on_and_are_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(defects, "TABLE", tmp_path / "defects.csv")
    given = dict(phantoms=("rectangles",), only="tv, edge prior")
    defects.main(objects=1, **given)
    first = (tmp_path / "defects.csv").read_bytes()
    defects.main(objects=1, **given)
    assert (tmp_path / "defects.csv").read_bytes() == first
    assert (tmp_path / "defects.png").is_file() and "| tv, edge prior, 15% | 1, " in capsys.readouterr().out
