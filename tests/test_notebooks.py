"""Notebooks and the gallery's scripts run as they stand, at a small size."""

import importlib.util
import re
from pathlib import Path

import matplotlib as mpl
import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTUQ_NOTEBOOK_SIZE", "20")
    with mpl.rc_context({"backend": "Agg"}):
        yield tmp_path


def run(path):
    names = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    return names


def test_the_scientist_gets_numbers_with_intervals(somewhere, capsys):
    names = run(DOCS / "notebooks/scientist.py")
    low, high = names["mean"].interval
    assert low < names["mean"].value < high
    assert "at least" not in names["mean"].name and "draws" in capsys.readouterr().out
    assert (somewhere / "report.html").is_file()


def test_the_operator_measures_until_the_dose_is_spent(somewhere, capsys):
    names = run(DOCS / "notebooks/operator.py")
    assert len(names["session"].state.views) == 8
    assert "budget of 8" in capsys.readouterr().out
    assert names["result"].scan.n_angles == 8


def test_the_researcher_scores_three_kinds(capsys):
    names = run(DOCS / "notebooks/researcher.py")
    assert set(names["table"]) == {"edge prior", "one constant", "FBP, calibrated"}
    assert capsys.readouterr().out.count("nats a ray") == 3


def test_notebooks_are_cells_that_begin_with_a_heading():
    for path in sorted((DOCS / "notebooks").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert "format_name: percent" in text and re.search(r"# %% \[markdown\]\n# # \w", text), path
        assert text.count("\n# %%\n") >= 4
    assert {path.stem for path in (DOCS / "notebooks").glob("*.py")} == {"scientist", "operator", "researcher"}


def test_the_gallery_shows_what_its_scripts_make(somewhere):
    spec = importlib.util.spec_from_file_location("draw", DOCS / "gallery/draw.py")
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    for script in draw.scripts():
        assert "size=64" in script
        (name,) = re.findall(r'"(\w+\.png)"', script)
        assert f"(gallery/{name})" in page and (DOCS / "gallery" / name).is_file()
        exec(compile(script.replace("size=64", "size=20").replace("every(4)", "every(8)"), "gallery.md", "exec"), {})
        assert (somewhere / name).stat().st_size > 1000
