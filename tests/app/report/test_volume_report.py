"""The report of a volume: one page of its own whose sliders show what is in the results, of any size."""

import base64
import hashlib
import json
import re
from dataclasses import replace

import browser as chromium
import numpy as np
import pytest

from ctuq.app.report import volume_viewer
from ctuq.app.report.volume import sentences, slice_pictures, write_volume_report
from ctuq.app.report.volume_viewer import volume_data
from ctuq.tomo import Parallel3D, VolumeGrid
from ctuq.tomo.scan import Provenance
from ctuq.uncertainty.results.volume import VolumeResult

SHAPE = (5, 8, 7)


@pytest.fixture
def result():
    rng = np.random.default_rng(0)
    geometry = Parallel3D(angles=np.linspace(0, 3, 9), rows=5, columns=8, pixel=1.0)
    mean, std = rng.random(SHAPE, np.float32), 0.1 * rng.random(SHAPE, np.float32)
    mean[3] = std[3] = np.nan
    return VolumeResult(
        mean,
        VolumeGrid(SHAPE, 0.5, (1.0, 2.0, 3.0)),
        geometry,
        "dip",
        std=std,
        slice_pitch=2.0,
        provenance=Provenance(source="<script>alert(1)</script>.h5"),
        scores={"held_out_rms_z": 1.02, "held_out_rms_z_min": 0.9, "held_out_rms_z_max": 1.1},
        slices={"failed": np.array([0.0, 0, 0, 1, 0])},
        warnings=("Slice 3 could not be made.",),
    )


def decoded(packed, shape):
    codes = np.frombuffer(base64.b64decode(packed["data"]), np.uint8).reshape(shape).astype(float)
    return np.where(codes == 0, np.nan, packed["low"] + packed["step"] * (codes - 1))


@pytest.fixture
def page(result, tmp_path):
    path = write_volume_report(result, tmp_path / "report.html", slice_pictures(result, tmp_path / "figures"))
    return path.read_text("utf-8")


def test_the_sliders_hold_every_voxel_to_a_byte(result):
    data = volume_data(result)
    assert data["shape"] == list(SHAPE)
    for name in ("mean", "std"):
        shown, true = decoded(data["layers"][name], SHAPE), getattr(result, name)
        np.testing.assert_allclose(shown, true, atol=0.51 * data["layers"][name]["step"])
        assert np.isnan(shown[3]).all()
    assert data["first"] == {"z": pytest.approx(3 - 4), "y": pytest.approx(2 + 1.75), "x": pytest.approx(1 - 1.5)}
    assert data["step"] == {"z": 2.0, "y": -0.5, "x": 0.5}


def test_a_large_volume_is_averaged_and_says_so(result, monkeypatch):
    monkeypatch.setattr(volume_viewer, "MOST_ACROSS", 4)
    data = volume_data(result)
    assert (data["shape"], data["block"]) == ([3, 4, 4], [2, 2, 2])
    mean, std = (decoded(data["layers"][name], (3, 4, 4)) for name in ("mean", "std"))
    assert mean[0, 1, 2] == pytest.approx(result.mean[:2, 2:4, 4:6].mean(), abs=0.01)
    assert std[0, 1, 2] == pytest.approx(np.sqrt(np.mean(result.std[:2, 2:4, 4:6] ** 2)), abs=0.001)
    assert mean[2, 0, 3] == pytest.approx(np.mean([result.mean[4, :2, 6], result.mean[4, :2, 6]]), abs=0.01)
    assert data["step"]["z"] == 4.0
    assert data["first"]["y"] == pytest.approx(2 + 1.5)


def test_the_page_needs_nothing_from_outside_and_runs_its_own_script_alone(page):
    assert re.findall(r"(?:src|href)=\"(?!data:)", page) == []
    assert "http" not in page.replace("http-equiv", "")
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(script) == 1
    told = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src &#39;sha256-{told}&#39;" in page or f"script-src 'sha256-{told}'" in page
    assert "alert(1)</script>.h5" not in page


def test_the_page_has_a_slider_an_axis_both_layers_and_the_warnings(page, result):
    for axis, n in zip("zyx", SHAPE, strict=True):
        assert re.search(rf'id="at-{axis}" min="0" max="{n - 1}"', page)
    assert 'value="std"' in page
    assert "Slice 3 could not be made." in page
    assert "0.5 mm, 2 mm from slice to slice" in page
    assert "and 1 could not be" in page
    assert "rms z of 1.02 (0.90 to 1.10 in single slices)" in page
    data = json.loads(re.search(r'id="volume-data">(.*?)</script>', page, re.DOTALL)[1])
    assert data["layers"].keys() == {"mean", "std"}


def test_a_volume_without_error_bars_has_no_layer_of_them(result, tmp_path):
    plain = replace(result, std=None, scores={}, slices={})
    path = write_volume_report(plain, tmp_path / "report.html", b"")
    text = path.read_text("utf-8")
    assert 'value="std"' not in text
    assert "It has no error bars" in text
    assert volume_data(plain)["layers"].keys() == {"mean"}


def test_a_volume_of_no_numbers_and_a_flat_one_are_drawn_too(result, tmp_path):
    for value in (np.nan, 0.3):
        odd = replace(result, mean=np.full(SHAPE, value, np.float32), std=np.full(SHAPE, value, np.float32))
        write_volume_report(odd, tmp_path / "report.html", slice_pictures(odd, tmp_path / "figures"))
        assert sentences(odd)


def test_a_page_from_the_file_is_that_from_memory(result, page, tmp_path):
    result.save(tmp_path / "results.h5")
    with VolumeResult.open(tmp_path / "results.h5") as lazily:
        path = write_volume_report(lazily, tmp_path / "again.html", slice_pictures(lazily, tmp_path / "figures"))
    assert path.read_text("utf-8") == page


@pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing())
def test_the_sliders_move_the_slices_in_a_browser(result, page, tmp_path):
    with chromium.browser(tmp_path / "profile") as shown:
        shown.open(tmp_path / "report.html")
        assert shown.messages() == []
        before = shown.text("#readout")
        shown.run(
            "const s = document.getElementById('at-z'); s.value = 1; s.dispatchEvent(new Event('input', {bubbles: true}))"
        )
        assert shown.text("#mm-z").replace("−", "-") == "1 mm"
        assert shown.text("#readout") != before
        shown.run(
            "const s = document.getElementById('at-z'); s.value = 3; s.dispatchEvent(new Event('input', {bubbles: true}))"
        )
        assert shown.text("#readout") == "no value here"
