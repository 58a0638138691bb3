"""The comparison on UCI sets, on a tiny set of its own."""

import csv
import gzip
import sys

import numpy as np
import pytest
import torch

from ctuq import CtuqError
from experiments.uci import __main__ as uci
from experiments.uci import table
from experiments.uci.contestants import Budget
from experiments.uci.sets import load, names

OURS = ("auto", "cholesky", "cg", "blocks", "sdd", "sgd", "inducing")


@pytest.fixture
def folder(tmp_path):
    """A set of 90 noisy values of a plane wave, every third a test point."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 2))
    y = 5 + 3 * np.sin(x[:, :1] + x[:, 1:]) + 0.3 * rng.normal(size=(90, 1))
    place = tmp_path / "sets" / "wave"
    place.mkdir(parents=True)
    for name, values in (("data", np.hstack([x, y])), ("test_mask", np.arange(90)[:, None] % 3 == np.arange(2))):
        with gzip.open(place / f"{name}.csv.gz", "wt") as file:
            np.savetxt(file, values, delimiter=",")
    return tmp_path / "sets"


@pytest.fixture
def options(folder, tmp_path):
    return uci.Options(
        folder,
        solvers=OURS,
        learn=60,
        store=tmp_path / "runs",
        out=tmp_path / "uci",
        budget=Budget(16, steps=2000, inducing=40),
    )


def rows(options):
    with options.out.with_suffix(".csv").open() as file:
        return {row["solver"]: row for row in csv.DictReader(file)}


def test_columns_are_standardised_by_the_training_data(folder):
    assert names(folder) == ["wave"]
    data = load(folder, "wave", 1, 50, 0)
    assert (len(data.x), len(data.x_test)) == (50, 30)
    torch.testing.assert_close(data.x.mean(0), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(data.y.std(correction=0), torch.tensor(1.0, dtype=torch.float64))


def test_all_solvers_land_in_the_table_and_agree(options):
    uci.main(options)
    found = rows(options)
    assert tuple(found) == OURS
    exact = float(found["cholesky"]["rmse"])
    assert 0.05 < exact < 0.4
    for solver in ("cg", "blocks", "inducing", "sdd"):
        assert float(found[solver]["rmse"]) == pytest.approx(exact, rel=0.08), solver
        assert float(found[solver]["nll"]) == pytest.approx(float(found["cholesky"]["nll"]), abs=0.3), solver
    assert float(found["cholesky"]["residual"]) < 1e-10
    assert options.out.with_suffix(".png").stat().st_size > 1000


def test_what_is_done_is_not_done_again(options, monkeypatch, capsys):
    uci.main(options)
    before = rows(options)
    monkeypatch.setattr(uci, "measure", None)
    monkeypatch.setattr(uci, "maximise_on_subsets", None)
    uci.main(options)
    assert rows(options) == before


def test_differences_from_the_peer_are_paired(options):
    pytest.importorskip("gpytorch")
    from dataclasses import replace

    uci.main(replace(options, solvers=("cholesky", "gpytorch")))
    found = rows(options)
    assert abs(float(found["cholesky"]["rmse_minus_peer"])) < 0.01
    assert abs(float(found["cholesky"]["nll_minus_peer"])) < 0.02
    rmse = [float(found[solver]["rmse"]) for solver in ("cholesky", "gpytorch")]
    assert float(found["cholesky"]["rmse_minus_peer"]) == pytest.approx(rmse[0] - rmse[1], abs=1e-5)
    assert float(found["gpytorch"]["nll_minus_peer"]) == 0
    assert float(found["gpytorch"]["cpu_seconds_over_peer"]) == 1


def test_an_outlier_is_an_arrow_and_the_axis_stays(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(table.Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    row = {"set": "wave", "n": 60, "rmse": 0.1, "rmse_se": 0.01, "nll_se": 0.1, "cpu_seconds": 1.0}
    table.write_figure(
        [row | {"solver": "auto", "nll": -1.0}, row | {"solver": "gpytorch", "nll": 3275.7}], tmp_path / "uci.png"
    )
    panel = drawn[0].axes[1]
    assert [text.get_text() for text in panel.texts] == ["3,276"]
    assert panel.get_xlim()[1] < 10


def test_a_missing_peer_is_one_clear_sentence(options, monkeypatch):
    monkeypatch.setitem(sys.modules, "gpytorch", None)
    from dataclasses import replace

    with pytest.raises(CtuqError, match="pip install gpytorch"):
        uci.main(replace(options, solvers=("gpytorch",)))


def test_a_folder_without_sets_is_refused(tmp_path):
    with pytest.raises(CtuqError, match=r"no NAME/data\.csv\.gz"):
        names(tmp_path)
