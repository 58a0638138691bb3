"""The experiment that sets ctuq's systematic errors beside algotom's corrections, without algotom."""

import ast
from pathlib import Path

import numpy as np
import pytest

from ctuq.tomo.axis import axis_column, find_axis
from experiments.systematics import field_tools
from experiments.systematics.field_tools import DEFECTS, Options, subject_of


def test_what_runs_in_another_environment_imports_nothing_of_ours():
    tree = ast.parse(Path(field_tools.__file__).with_name("algotom_side.py").read_text())
    froms = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names] + froms
    assert "numpy" in names and not any(name.split(".")[0] in ("ctuq", "torch", "experiments") for name in names)
    keys = [n for n in ast.walk(tree) if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "METHODS"]
    assert {key.value for key in keys[0].value.keys} == {kind for kind, _ in DEFECTS.values() if kind}


def test_a_defect_is_all_that_two_scans_differ_by():
    scans = {name: subject_of("ellipses", 0, name, 24, 25) for name in DEFECTS}
    plain = scans["none"].scan
    for name, (kind, level) in DEFECTS.items():
        other = scans[name]
        np.testing.assert_array_equal(other.scan.truth, plain.truth)
        assert other.scan.geometry == plain.geometry
        change = other.scan.projections - plain.projections
        if kind == "gain":
            np.testing.assert_allclose(change, np.broadcast_to(-other.true, change.shape), atol=1e-5)
            assert np.sqrt(np.mean(other.true**2)) == pytest.approx(level * 0.02 * plain.projections.mean(), rel=0.02)
        if kind == "axis":
            found = find_axis(other.scan).column - axis_column(plain.geometry)
            assert found == pytest.approx(level, abs=0.25) and other.true == level


def test_rows_are_made_once_and_the_table_has_their_means(monkeypatch, tmp_path):
    monkeypatch.setattr(field_tools, "TABLE", tmp_path / "table.csv")
    few = {"size": 16, "views": 9, "objects": ("ellipses",), "defects": ("none", "gains, 3 x noise")}
    field_tools.main(Options(seeds=1, **few))
    first = (tmp_path / "table.csv").read_text()
    field_tools.main(Options(seeds=2, **few))
    second = (tmp_path / "table.csv").read_text()
    assert second.startswith(first) and len(second.splitlines()) == 1 + 2 * (len(first.splitlines()) - 1) == 13
    table = field_tools.table_of(field_tools.Rows(tmp_path / "table.csv"))
    errors = [float(r["error"]) for r in field_tools.Rows(tmp_path / "table.csv").where(method="tv, as it is", defect="none")]
    assert f"{np.mean(errors):.3g} ± {np.std(errors, ddof=1) / 2**0.5:.2g}" in table
