"""A table that is shipped is not written over with nothing, where no fit is kept to make it of."""

import importlib

import pytest

from experiments import tables

_TABLES = {
    "calibration.__main__": {"fit": False},
    "calibration.placement": {"fit": False},
    "calibration.edges": {"fit": False},
    "quantities.__main__": {"fit": False},
    "quantities.parts": {"tv": 0, "dip": 0},
    "quantities.outlines": {"tv": 0, "dip": 0},
    "quantities.changes": {"tv": 0, "dip": 0},
    "quantities.stacks": {"tv": 0, "dip": 0},
}


@pytest.mark.parametrize("name", _TABLES)
def test_an_experiment_that_has_kept_nothing_leaves_its_table(name, tmp_path, monkeypatch):
    module = importlib.import_module(f"experiments.{name}")
    for each in [module, importlib.import_module("experiments.quantities.objects")]:
        for place in ("FIGURES", "KEPT"):
            monkeypatch.setattr(each, place, tmp_path, raising=False)
    if hasattr(module, "OUTPUT"):
        monkeypatch.setattr(module, "OUTPUT", tmp_path / "calibration_edges.csv")
    for scans in ("subjects", "chosen", "cases"):  # seconds of reading
        if name.startswith("calibration"):
            monkeypatch.setattr(module, scans, lambda *_: (), raising=False)
    more = {"cache": tmp_path / "none"} if name.startswith("calibration") else {}
    with pytest.raises(SystemExit, match="stays as it is"):
        module.main(**_TABLES[name], **more)
    assert not list(tmp_path.glob("*.csv"))


def test_a_row_may_have_columns_that_the_first_lacks(tmp_path):
    tables.write([{"a": 1, "b": 0.123456789}, {"a": 2, "c": "x"}], tmp_path / "table.csv", digits=3)
    assert (tmp_path / "table.csv").read_text().splitlines() == ["a,b,c", "1,0.123,", "2,,x"]
