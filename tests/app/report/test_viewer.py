"""The report's viewer in a browser: what it measures is what the result says, by mouse, touch and keyboard."""

import base64
import io
import json
import re
from dataclasses import replace

import browser as chromium
import numpy as np
import pytest
import tifffile

from ctuq.app.report.page import write_report
from ctuq.app.report.viewer import viewer_data
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.kept_covariance import KeptCovariance

pytestmark = pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing() or "chromium is there")


@pytest.fixture(scope="module")
def known(result) -> Result:
    """A result whose covariance is kept: smooth directions and pixels on their own."""
    rng = np.random.default_rng(4)
    shape, waves = result.mean.shape, 3
    y, x = np.mgrid[: 1 : 1j * shape[0], : 1 : 1j * shape[1]]
    smooth = [np.cos(np.pi * (a * y + b * x)) for a in range(4) for b in range(4)]
    directions = np.stack([0.002 * rng.standard_normal() * image for image in smooth]).astype(np.float32)
    std = np.sqrt((directions**2).sum(0) + 0.001**2 * (1 + x)).astype(np.float32)
    return replace(result, directions=directions, waves=waves, std=std)


@pytest.fixture(scope="module")
def page(known, tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewer")
    write_report(known, folder / "report.html", {})
    with chromium.browser(folder / "profile") as opened:
        opened.open(folder / "report.html")
        yield opened
        assert opened.messages() == []


@pytest.fixture(autouse=True)
def afresh(page):
    page.resize(1200, 900)
    page.click("button[type=reset]")
    page.run("for (const button of document.querySelectorAll('#measurements button')) button.click()")
    page.choose("#tool", "look")
    page.run("URL.createObjectURL = (blob) => { window.saved = blob; return 'data:,'; }")


def numbers(text: str) -> list[float]:
    return [float(n) for n in re.findall(r"-?\d+\.?\d*", text.replace("−", "-"))]


def across(page, result) -> float:
    """CSS pixels of an image pixel."""
    return page.run("return document.getElementById('canvas').getBoundingClientRect().width") / result.mean.shape[1]


def test_a_rectangle_has_the_mean_and_deviation_that_the_result_tells(page, known):
    page.choose("#tool", "rectangle")
    each = across(page, known)
    page.drag("#canvas", (round(-8 * each), round(-6 * each)), (round(4 * each), round(6 * each)))
    middle = known.mean.shape[0] // 2
    weights = np.zeros((1, *known.mean.shape))
    weights[0, middle - 6 : middle + 6, middle - 8 : middle + 4] = 1 / 144
    told = page.text("#measured")
    value, spread = numbers(told.split("mean")[1])[:2]
    assert numbers(told)[2] == pytest.approx(144 * known.grid.voxel**2, rel=0.02)
    assert value == pytest.approx(float((weights[0] * known.mean).sum()), rel=0.02)
    told = known.region(weights[0] > 0)
    assert spread == pytest.approx(told.standard_uncertainty, rel=0.03)
    assert page.run("return document.querySelectorAll('#measurements tr').length") == 1


def test_a_region_holds_what_the_image_does_to_edges(known, tmp_path):
    """Without it the viewer told a region as a hundred times as sure as ``ctuq measure``."""
    sure = replace(known, directions=known.directions * np.float32(1e-3), std=known.std * np.float32(1e-3))
    write_report(sure, tmp_path / "report.html", {})
    with chromium.browser(tmp_path / "profile") as opened:
        opened.resize(1200, 900)
        opened.open(tmp_path / "report.html")
        each, middle = across(opened, sure), sure.mean.shape[0] // 2
        opened.choose("#tool", "rectangle")
        opened.drag("#canvas", (round(-20 * each), round(-20 * each)), (round(-6 * each), round(-6 * each)))
        mask = np.zeros(sure.mean.shape)
        mask[middle - 20 : middle - 6, middle - 20 : middle - 6] = 1
        told = sure.region(mask)
        assert told.standard_uncertainty > 20 * np.sqrt(sure.covariance(mask[None] / mask.sum())[0, 0])
        spread = numbers(opened.text("#measured").split("mean")[1])[1]
        assert spread == pytest.approx(told.standard_uncertainty, rel=0.1)
        assert opened.messages() == []


def test_blocks_of_a_large_image_keep_the_deviation_of_a_region(known):
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:1:200j, :1:200j]
    smooth = [np.cos(np.pi * (a * y + b * x)) for a in range(4) for b in range(4)]
    directions = np.stack([0.002 * rng.standard_normal() * image for image in smooth]).astype(np.float32)
    std = np.sqrt((directions**2).sum(0) + 0.003**2).astype(np.float32)
    large = replace(known, mean=std, directions=directions, std=std, waves=3, truth=None, comparisons={}, samples=None)
    kept = viewer_data(large)["covariance"]
    assert kept["block"] == 4 and kept["shape"] == [100, 100]
    codes = np.frombuffer(base64.b64decode(kept["directions"]), np.int8).reshape(-1, 100, 100)
    steps = np.frombuffer(base64.b64decode(kept["steps"]), np.float32)
    region = np.zeros((100, 100))
    region[20:60, 30:70] = 1 / 1600
    along = ((codes * steps[:, None, None]) * region).sum((1, 2))
    full = np.kron(region, np.ones((2, 2))).reshape(1, -1) / 4
    wanted = KeptCovariance(directions, std, 3)(full)[0, 0]
    own = kept["own"]["low"] + kept["own"]["step"] * np.frombuffer(base64.b64decode(kept["own"]["data"]), "<u2").reshape(
        100, 100
    )
    assert (along**2).sum() + (region**2 * own).sum() / 4 == pytest.approx(wanted, rel=0.05)


def test_a_line_by_the_keyboard_has_a_profile_and_is_read_out(page, known):
    page.choose("#tool", "line")
    page.keys("#canvas", "\ue012" * 3 + " " + "\ue014" * 9 + " ")
    told = page.text("#measured")
    assert told.startswith("line from")
    assert numbers(told)[-1] == pytest.approx(9 * known.grid.voxel, rel=0.02)
    assert not page.run("return document.getElementById('profile').hidden")
    assert "95 % band" in page.text("#profile-text")


def test_a_polygon_is_closed_by_a_double_click_and_removed_by_its_button(page, known):
    page.choose("#tool", "polygon")
    for point in ((-60, -60), (60, -60), (0, 60)):
        page.drag("#canvas", point)
    page.run("document.getElementById('canvas').dispatchEvent(new MouseEvent('dblclick', {bubbles: true, cancelable: true}))")
    each = across(page, known)
    assert numbers(page.text("#measured"))[2] == pytest.approx(0.5 * 120 * 120 / each**2 * known.grid.voxel**2, rel=0.1)
    page.click("#measurements button")
    assert page.run("return document.getElementById('measured-table').hidden")


def test_window_and_threshold_are_typed_and_the_probability_follows_them(page, known):
    page.choose("#low", 0.0)
    page.choose("#high", 0.02)
    assert page.text("#bar-high") == "0.02 1/mm"
    page.choose("#threshold", float(known.mean.max()) * 2)
    dark = page.run(
        "const c = document.getElementById('canvas'); return [...c.getContext('2d').getImageData(9, 9, 40, 40).data]"
    )
    assert page.run("return document.querySelector('input[name=layer]:checked').value") == "probability"
    assert np.array(dark).reshape(-1, 4)[:, :3].max() < 8


def test_what_is_shown_is_saved_as_tiff_and_csv(page, known):
    page.click("input[value=std]")
    page.click("#save-tiff")
    data = bytes(page.run("return window.saved.arrayBuffer().then((b) => [...new Uint8Array(b)])"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        image, tags = file.asarray(), file.pages[0].tags
    np.testing.assert_allclose(image, known.std, atol=1e-6)
    resolution = tags["XResolution"].value
    assert 10 * resolution[1] / resolution[0] == pytest.approx(known.grid.voxel, rel=1e-3)
    page.click("#save-csv")
    rows = page.run("return window.saved.text()").split("\r\n")
    np.testing.assert_allclose(np.array([row.split(",") for row in rows], float), known.std, atol=1e-6)


def test_zoom_keeps_the_place_under_the_mouse_and_reset_goes_back(page, known):
    page.hover("#canvas", 61, 41)
    before = numbers(page.text("#readout"))[:2]
    page.run(
        "const c = document.getElementById('canvas'), b = c.getBoundingClientRect();"
        "c.dispatchEvent(new WheelEvent('wheel', {deltaY: -400, cancelable: true, clientX: b.x + b.width / 2 + 61,"
        "clientY: b.y + b.height / 2 + 41}))"
    )
    page.hover("#canvas", 61, 41)
    assert numbers(page.text("#readout"))[:2] == pytest.approx(before, abs=known.grid.voxel)
    page.hover("#canvas", 0, 0)
    centre = numbers(page.text("#readout"))[:2]
    page.click("button[type=reset]")
    page.hover("#canvas", 0, 0)
    assert numbers(page.text("#readout"))[:2] != centre


def test_a_phone_shows_the_viewer_without_scrolling_sideways(page):
    page.resize(375, 800)
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")


def test_a_touch_draws_a_region(page):
    page.choose("#tool", "ellipse")
    page.run(
        "const c = document.getElementById('canvas'), b = c.getBoundingClientRect();"
        "const at = (type, x, y) => c.dispatchEvent(new PointerEvent(type, {pointerId: 1, pointerType: 'touch',"
        "isPrimary: true, bubbles: true, cancelable: true, clientX: b.x + x * b.width, clientY: b.y + y * b.height}));"
        "c.setPointerCapture = () => {}; at('pointerdown', 0.3, 0.3); at('pointermove', 0.6, 0.5); at('pointerup', 0.6, 0.5)"
    )
    assert page.text("#measured").startswith("ellipse around")


def test_a_result_without_a_kept_covariance_says_so(known, tmp_path):
    bare = replace(known, directions=None)
    write_report(bare, tmp_path / "report.html", {})
    assert json.loads(json.dumps(viewer_data(bare)["covariance"])) is None
    with chromium.browser(tmp_path / "profile") as opened:
        opened.open(tmp_path / "report.html")
        opened.choose("#tool", "rectangle")
        opened.drag("#canvas", (-30, -30), (30, 30))
        assert "not kept in the result" in opened.text("#measured")
        assert opened.messages() == []
