"""The engine's experiments, each at its smallest: what they write, and that nothing is made twice."""

import csv
from dataclasses import replace

import pytest
import torch

from ctuq import laplace
from ctuq.gp import Search
from experiments.engine import deep, regression, rescaled, sampled, tangent_deep, thompson
from experiments.engine.rows import Rows


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def small_scan():
    return deep.QUICK["U-Net"](0)


@pytest.fixture
def only_the_scan(monkeypatch, small_scan):
    """It is fitted once for all tests."""
    monkeypatch.setitem(deep.QUICK, "U-Net", lambda seed: small_scan)


def test_the_tangent_model_of_the_scan_predicts_its_rays(small_scan):
    model = small_scan.linearise(small_scan.network)
    assert model.outputs.shape == small_scan.y.shape
    unexplained = (model.outputs - small_scan.y).square().mean() / small_scan.y.square().mean()
    assert float(unexplained) < 0.3


def test_a_kept_fit_is_the_fit_that_was_found(small_scan, monkeypatch, tmp_path):
    monkeypatch.setattr(deep, "KEPT", tmp_path)
    model = small_scan.linearise(small_scan.network)
    prior = laplace.isotropic(model)
    first, again = (deep.exact_fit(model, small_scan.y, prior, "a name, kept") for _ in range(2))
    assert [path.name for path in tmp_path.iterdir()] == ["a_name_kept.json"]
    assert len(again.trajectory) <= 1 < len(first.trajectory)
    torch.testing.assert_close(again.psi, first.psi)
    assert again.log_evidence == pytest.approx(first.log_evidence, abs=1e-2)


def test_distances_from_the_tangent_model_shrink_with_the_draw(only_the_scan, tmp_path):
    options = tangent_deep.Options(2, priors=("g", "shared"), quick=True, out=tmp_path / "gaps")
    tangent_deep.main(options)
    rows = rows_of(tmp_path / "gaps.csv")
    whole = [row for row in rows if (row["moved"], row["prior"]) == ("all", "shared")]
    distances = [float(row["distance"]) for row in whole]
    assert [float(row["scale"]) for row in whole] == list(tangent_deep.SCALES) and distances == sorted(distances)
    before = (tmp_path / "gaps.csv").read_bytes(), (tmp_path / "gaps.png").read_bytes()
    tangent_deep.main(replace(options, draw=True))
    assert ((tmp_path / "gaps.csv").read_bytes(), (tmp_path / "gaps.png").read_bytes()) == before


def test_sampled_evidence_is_never_above_the_optimum_and_draws_spread_as_the_posterior(only_the_scan, tmp_path):
    options = sampled.Options(seeds=1, quick=True, out=tmp_path / "sampled")
    sampled.main(options)
    em, draws = rows_of(tmp_path / "sampled_em.csv"), rows_of(tmp_path / "sampled.csv")
    assert em and all(float(row["nats_below"]) > -0.01 for row in em)
    (exact,) = [row for row in draws if row["kind"] == "exact"]
    few = {int(row["samples"]): float(row["std_error"]) for row in draws if row["kind"] == "draws"}
    assert float(exact["std_error"]) < 1e-6
    assert all(0.3 < error * (2 * count) ** 0.5 < 2 for count, error in few.items())
    sampled.main(options)
    assert len(Rows(tmp_path / "sampled.csv").rows) == len(draws)


def test_regret_falls_and_is_that_of_the_best_value(tmp_path, monkeypatch):
    monkeypatch.setattr(thompson, "COLOURS", {name: thompson.COLOURS[name] for name in ("exact", "cg", "uniform")})
    search = Search(100, 2, 5)
    options = thompson.Options(2, 20, 2, rounds=2, parallel=4, features=200, search=search, out=tmp_path / "ts")
    thompson.main(options)
    rows = rows_of(tmp_path / "ts.csv")
    assert len(rows) == 2 * 3 * 3
    for seed in (0, 1):
        given = thompson.problem(seed, options)
        first = given.maximum - float(given.objective(given.x).max())
        for name in ("exact", "cg", "uniform"):
            regrets = [float(r["regret"]) for r in rows if (r["solver"], r["seed"]) == (name, str(seed))]
            assert regrets == sorted(regrets, reverse=True) and regrets[-1] > -1e-3
            assert regrets[0] == pytest.approx(first, rel=1e-3)
    found = thompson.summary(Rows(tmp_path / "ts.csv"))
    assert found["exact"][2] == 0 and found["uniform"][0] >= found["exact"][0]
    thompson.main(replace(options, draw=True))
    assert len(rows_of(tmp_path / "ts.csv")) == len(rows)


def test_at_the_same_hyperparameters_the_libraries_say_the_same(tmp_path):
    for name in ("sklearn", "laplace", "gpytorch"):
        pytest.importorskip(name)
    options = regression.Options(splits=1, hidden=4, epochs=5, out=tmp_path / "r")
    regression.main(options)
    rows = {row["method"]: row for row in rows_of(tmp_path / "r.csv")}
    assert set(rows) == set(regression.COLOURS)
    assert float(rows["ctuq, as laplace-torch"]["std_difference"]) < 1e-4
    assert float(rows["gpytorch"]["std_difference"]) < 0.02
    assert rows["ctuq, as laplace-torch"]["rmse"] == rows["laplace-torch, full"]["rmse"] == rows["network"]["rmse"]
    assert all(0.5 < float(row["rmse"]) < 1.2 for row in rows.values())


def test_weights_before_a_normalisation_may_be_multiplied(tmp_path, monkeypatch):
    monkeypatch.setattr(rescaled, "COLOURS", {name: rescaled.COLOURS[name] for name in ("shared", "g")})
    monkeypatch.setattr(rescaled, "FACTORS", (1.0, 10.0))
    rescaled.main(rescaled.Options(draws=16, quick=True, out=tmp_path / "r"))
    rows = {(row["prior"], float(row["factor"])): row for row in rows_of(tmp_path / "r.csv")}
    assert all(float(row["function_changed"]) < 1e-3 for row in rows.values())
    moved = {p: abs(float(rows[p, 1.0]["log_evidence"]) - float(rows[p, 10.0]["log_evidence"])) for p in ("shared", "g")}
    assert moved["g"] < 0.1 < moved["shared"]
