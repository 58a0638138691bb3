"""What reading a scan assumed, repaired, searched for or left out is told wherever a user looks."""

from html import unescape

import numpy as np
import pytest

from ctuq.app import cli
from ctuq.files import read, write_scan
from ctuq.tomo.scan import Provenance
from ctuq.uncertainty.results.image import Result


@pytest.fixture
def bare_file(tmp_path):
    """Counts of a disc with a dead pixel, without pixel size, kind of values or axis."""
    across, turned = np.linspace(-1, 1, 40), np.deg2rad(np.arange(0, 180, 9.0))[:, None]
    counts = 5000 * np.exp(-2 * np.sqrt(np.maximum(0, 0.4 - (across - 0.3 * np.cos(turned)) ** 2)))
    counts = np.random.default_rng(0).poisson(counts)
    counts[4, 9] = 0
    np.savez(tmp_path / "a.npz", sinogram=counts, angles_deg=np.arange(0, 180, 9.0), kind="parallel", pixel=0.5)
    (tmp_path / "a.yaml").write_text("values: counts\nflat: 5000\n")
    return tmp_path / "a.npz"


def test_a_warning_stands_on_the_terminal_in_info_in_the_report_and_in_the_result(bare_file, tmp_path, capsys):
    warnings = read(bare_file).warnings
    assert any("1 bad rays of 800" in text for text in warnings) and any("rotation axis was" in text for text in warnings)
    assert cli.main(["info", str(bare_file)]) == 0
    in_info = capsys.readouterr().out
    assert cli.main(["reconstruct", str(bare_file), "-o", str(tmp_path / "run"), "--method", "fbp", "--size", "16"]) == 0
    on_terminal = capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text()
    head = unescape(page[page.index("<header>") : page.index("</header>")])
    assert Result.load(tmp_path / "run" / "results.h5").warnings == warnings
    for text in warnings:
        assert text in head
        assert in_info.count(text) == on_terminal.count(text) == 1


def test_warnings_are_kept_in_a_scan_of_ours_and_by_a_selection_of_views(bare_file, tmp_path):
    scan = read(bare_file)
    write_scan(scan.every(2), tmp_path / "own.h5")
    assert read(tmp_path / "own.h5").warnings == scan.warnings != ()


def test_a_warning_is_a_step_too_and_stands_once():
    told = Provenance(steps=("read",)).warned("Two views are gone.", "Two views are gone.").warned("Two views are gone.")
    assert told.warnings == ("Two views are gone.",) and told.steps == ("read", "Two views are gone.")
