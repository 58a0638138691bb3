"""What the tutorials show is what their commands print: the quick ones anew, and one fit against the table of all."""

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from ctuq.app.cli import main
from ctuq.uncertainty.results.image import Result
from experiments.tutorials import TABLE, blocks, printed, typical

ROOT = Path(__file__).resolve().parents[1]


def commands(text):
    return [line for line in text.splitlines() if line.startswith("ctuq ")]


def test_the_live_session_prints_what_the_page_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "tutorial_operator.md").read_text(encoding="utf-8")
    (beam,) = re.findall(r"```yaml\n(.*?)```", page[page.index("## 6.") :], re.DOTALL)
    (tmp_path / "geom.yml").write_text(beam)
    (tmp_path / "pilot.txt").write_text("0\n36\n72\n108\n144\n")
    (simulate,) = re.findall(r"`(ctuq simulate [^`]*-o p1.h5)`", page)
    assert main(shlex.split(simulate)[1:]) == 0
    shown = re.findall(r"^```(\w*)\n(.*?)^```$", page[page.index("## 6.") :], re.MULTILINE | re.DOTALL)
    told, checked = "", 0
    for text in (text for language, text in shown if not language):
        if commands(text):
            capsys.readouterr()
            for line in commands(text):
                assert main(shlex.split(line)[1:]) == 0
            told = capsys.readouterr().out
        else:
            assert text in told
            checked += 1
    assert checked == 2


def test_what_the_scientist_is_shown_of_the_walnut_is_what_info_prints(capsys):
    page = (ROOT / "docs" / "tutorial_scientist.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```\n( *source .*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert main(["info", str(ROOT / "data" / "walnut" / "walnut.png")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line for line in shown.splitlines()[1:] if line not in told] == []


def test_the_classical_methods_print_what_the_researcher_is_shown():
    found = blocks("tutorial_researcher.md", "A scan with a truth", "The Deep Image Prior, step by step")
    told = printed("\n".join(text for language, text in found if language == "python"))
    (shown,) = (text for language, text in found if not language)
    numbers = [re.findall(r"'(\w+)': ([\d.]+)\.\.\.", line) for line in shown.splitlines()]
    for line, kept in zip(told, numbers, strict=True):
        assert len(kept) == 3
        values = dict(re.findall(r"'(\w+)': ([\d.]+)", line))
        for name, digits in kept:
            assert float(values[name]) == pytest.approx(float(digits), rel=0.01), line


def test_a_fit_of_the_operators_table_is_made_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "tutorial_operator.md").read_text(encoding="utf-8")
    (simulate,) = re.findall(r"^(ctuq simulate .* -o scan.h5)$", page, re.MULTILINE)
    (fit,) = re.findall(r"^(ctuq reconstruct .* -o run7/ .*)$", page, re.MULTILINE)
    for line in (simulate, fit):
        assert main(shlex.split(line)[1:]) == 0
    with TABLE.open(newline="") as file:
        kept = {row["name"]: float(row["value"]) for row in csv.DictReader(file) if row["what"] == "run7"}
    result = Result.load("run7/results.h5")
    # Another processor's sums end a fit elsewhere by some per cent.
    assert typical(result) == pytest.approx(kept["typical_std"], rel=0.15)
    assert result.scores["truth"]["psnr"] == pytest.approx(kept["psnr"], abs=1.5)
    assert np.isfinite(result.mean).all()
