"""A session whose scanner is not as it was told says so: no design has systematic errors in its model."""

import time
from dataclasses import replace

import numpy as np
import pytest

from ctuq.app import cli
from ctuq.app.design.serve import Resident
from ctuq.design.session.file import Settings
from ctuq.design.session.session import Session
from ctuq.files import write_scan
from ctuq.tomo.axis import with_axis_column
from ctuq.tomo.simulate import phantom_scan

ANGLES = np.arange(10) * np.pi / 10


@pytest.fixture(scope="module")
def scan():
    return phantom_scan("ellipses", 32, ANGLES, noise=0.02, seed=1)


def told(path, scan, **wrong):
    session = Session.start(path, replace(scan.geometry, **wrong), Settings(size=16, prior="isotropic", pilot=10))
    session.tell(ANGLES, scan.projections, ahead=False)
    return session.doubts()


def test_a_right_scanner_raises_no_doubt(scan, tmp_path):
    assert told(tmp_path / "s.h5", scan) == ()


def test_an_axis_columns_beside_its_place_is_told_in_the_detector_s_columns(scan, tmp_path):
    right = (scan.geometry.columns - 1) / 2
    (text,) = told(tmp_path / "s.h5", scan, axis_offset=5 * scan.geometry.pixel)
    assert f"taken at column {right + 5:.1f}, but 10 views say {right:.1f}" in text and "axis_column" in text


def test_flux_that_drifts_is_told(scan, tmp_path):
    drift = -np.log(np.linspace(1, 0.7, len(ANGLES)))[:, None]
    (text,) = told(tmp_path / "s.h5", replace(scan, projections=(scan.projections + drift).astype(np.float32)))
    assert "flux drifts" in text


def test_the_command_warns_where_views_are_told(scan, tmp_path, capsys):
    geometry = with_axis_column(scan.geometry, 28)
    write_scan(replace(scan, geometry=geometry), tmp_path / "views.h5")
    (tmp_path / "g.yml").write_text(f"kind: parallel\npixel: {geometry.pixel}\ncolumns: {geometry.columns}\naxis_column: 28\n")
    made = ["design", "start", tmp_path / "s.h5", "--geometry", tmp_path / "g.yml", "--candidates", "0:180:18", "--size", "16"]
    assert cli.main([str(word) for word in [*made, "--prior", "isotropic", "--pilot", "10"]]) == 0
    assert cli.main([str(word) for word in ["design", "tell", tmp_path / "s.h5", tmp_path / "views.h5"]]) == 0
    assert "taken at column 28.0, but 10 views say" in capsys.readouterr().out


def test_a_resident_session_tells_its_doubts(scan, tmp_path):
    settings = Settings(size=16, prior="isotropic", pilot=10)
    Session.start(tmp_path / "s.h5", replace(scan.geometry, axis_offset=5 * scan.geometry.pixel), settings)
    resident = Resident(tmp_path / "s.h5")
    assert resident.answer("status", {})["doubts"] == []
    degrees = np.rad2deg(ANGLES).tolist()
    resident.answer("tell", {"angles": degrees, "projections": scan.projections.tolist()})
    resident.close()
    for _ in range(200):
        if not resident.answer("status", {})["learning"]:
            break
        time.sleep(0.1)
    (text,) = resident.answer("status", {})["doubts"]
    assert "10 views say" in text
    (same,) = Resident(tmp_path / "s.h5").answer("status", {})["doubts"]
    assert same == text
