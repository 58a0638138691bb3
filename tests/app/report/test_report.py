import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import browser as chromium
import numpy as np
import pytest

from ctuq.app.report import tables
from ctuq.app.report.catalogue import pictures_of
from ctuq.app.report.page import draw_all, render_report, write_figures, write_report
from ctuq.app.report.summary import _BY_SAMPLES, how_sure, how_trustworthy, scan_name, sentences
from ctuq.app.report.viewer import viewer_data
from ctuq.errors import InputError
from ctuq.pipeline.image.spreads import SPREADS
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.scan import Provenance
from ctuq.uncertainty.results.image import Result

HALF_STEP = 0.500001


class Page(HTMLParser):
    """The parts of a page that the tests look at."""

    def __init__(self, text):
        super().__init__()
        self.images, self.addresses, self.ids = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.images += [attributes] if tag == "img" else []
        self.addresses += [attributes[name] for name in ("src", "href", "action") if name in attributes]


@pytest.fixture(scope="module")
def images(result):
    return draw_all(result)


@pytest.fixture(scope="module")
def page(result, images):
    return render_report(result, images)


def decoded(packed, kind):
    return packed["low"] + packed["step"] * np.frombuffer(base64.b64decode(packed["data"]), kind).astype(float)


def test_the_page_needs_nothing_from_outside(page):
    assert page.startswith("<!DOCTYPE html>")
    addresses = Page(page).addresses
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|https?://", page)
    assert len(page) < 6e6


def test_the_page_shows_every_picture_with_its_alternative_text(result, page):
    images = Page(page).images
    assert len(images) == len(pictures_of(result))
    assert all(len(image["alt"]) > 20 for image in images)
    assert {picture.name for picture in pictures_of(result)} <= set(Page(page).ids)


def test_the_page_tells_what_how_sure_and_what_to_beware(result, page):
    for sentence in (*sentences(result), *result.warnings):
        assert sentence in page
    for text in (
        "Rays of held-out views",
        "Against the truth",
        "Leave one angle out",
        "PSNR (dB)",
        "Hyperparameters",
        "Time (s)",
    ):
        assert text in page
    for text in ("How to cite", "Nobody 2025", "Linearised Deep Image Prior", "lengthscale", "2.13.0", "12.5"):
        assert text in page


def test_text_of_a_file_cannot_become_markup(page):
    assert "two &lt;ellipses&gt;" in page
    assert "<ellipses>" not in page


def test_a_bare_result_gets_a_page_without_uncertainty(bare):
    page = render_report(bare, draw_all(bare))
    assert "No uncertainty was computed" in page
    assert not {"std", "calibration", "sure", "trust"} & set(Page(page).ids)


def test_the_viewer_gets_the_images_to_half_a_step(result):
    data = json.loads(json.dumps(viewer_data(result)))
    for name, image in (("mean", result.mean), ("std", result.std), ("truth", result.truth)):
        packed = data["layers"][name]
        np.testing.assert_allclose(decoded(packed, "<u2"), image.reshape(-1), atol=HALF_STEP * packed["step"] + 1e-8)
        assert packed["step"] < np.ptp(image) / 60000
    draws = decoded(data["samples"], np.uint8).reshape(-1, *result.mean.shape)
    np.testing.assert_allclose(draws, result.samples[: len(draws)], atol=HALF_STEP * data["samples"]["step"] + 1e-8)


def test_a_large_image_is_averaged_over_blocks_and_stays_small(scan):
    rng = np.random.default_rng(0)
    large = rng.standard_normal((1025, 1025)).astype(np.float32)
    result = Result(large, scan, VolumeGrid((1025, 1025), 0.1), "dip", std=np.abs(large), samples=np.stack([large] * 4))
    data = viewer_data(result)
    assert (data["block"], data["shape"]) == (3, [342, 342])
    first = data["layers"]["mean"]
    np.testing.assert_allclose(decoded(first, "<u2")[0], large[:3, :3].mean(), atol=first["step"])
    assert len(json.dumps(data)) < 2e6


def test_the_summary_tells_over_confidence_from_caution(result):
    measured, predicted, raw, std = result.calibration.predictions

    def verdict(scale):
        predictions = np.stack([measured, predicted, raw, scale * std])
        changed = type(result.calibration)(**{**vars(result.calibration), "predictions": predictions})
        return how_trustworthy(replace(result, calibration=changed))

    assert "over-confident" in verdict(0.3)
    assert "right size" in verdict(1.05)
    assert "cautious" in verdict(3.0)
    assert "nothing has checked" in how_trustworthy(replace(result, calibration=None))


def test_the_report_says_what_intervals_may_cover(result, page):
    assert "the 95 % intervals of unseen rays cover between 88 and 97 %" in how_trustworthy(result)
    assert "between 88 and 97 %" in page
    assert "<td>61 to 74 %</td>" in page and "<td>88 to 97 %</td>" in page
    old = replace(result, calibration=replace(result.calibration, cover_68=(np.nan,) * 2, cover_95=(np.nan,) * 2))
    assert "intervals of unseen rays" not in how_trustworthy(old)
    assert "nan" not in how_trustworthy(old) + render_report(old, {})


def test_the_summary_speaks_of_the_object_not_of_the_air(result):
    inside = result.truth > 0
    assert f"± {np.median(result.std[inside]):.1g} 1/mm" in how_sure(result)
    level = float(re.search(r"its attenuation of ([\d.]+) 1/mm", how_sure(result)).group(1))
    assert level == pytest.approx(0.05, rel=0.05)


def test_the_summary_tells_how_exact_the_standard_deviations_are(result):
    drawn, exact = replace(result, std_error=0.034), replace(result, std_error=0.0)
    told = "They are themselves right to some 3.4 % (rms)"
    assert told in " ".join(sentences(drawn)) and told in render_report(drawn, {})
    assert "right to some" not in " ".join(sentences(exact)) + render_report(replace(drawn, std=None), {})


def test_of_samples_the_summary_tells_how_many_there_are(result):
    told = "40 samples know each standard deviation to 11 %."
    for settings in ({"error_bars": "samples"}, {"uncertainty": "bootstrap"}):
        by_samples = replace(result, std_error=(2 * 39) ** -0.5, settings=settings)
        assert told in (said := " ".join(sentences(by_samples))) and "right to some" not in said
        assert told in render_report(by_samples, {})


def test_every_kind_of_samples_is_told_of_as_such():
    assert set(_BY_SAMPLES) == set(SPREADS) - {"constant"}


@pytest.mark.parametrize(
    ("key", "value", "name", "shown"),
    [
        ("cover_68", 0.69, "68 % intervals cover (%)", "69.0"),
        ("cover_95_object", 0.942, "95 % intervals cover (%), object only", "94.2"),
        ("rms_z", 1.01, "rms z (1 is ideal)", "1.01"),
        ("some_thing", True, "some thing", "True"),
        ("iterations", 12345, "iterations", "12345"),
    ],
)
def test_names_and_numbers_are_readable(key, value, name, shown):
    assert tables.pairs({key: value, "psnr": np.nan}) == [(name, shown)]


def test_a_report_that_cannot_be_written_leaves_nothing(bare, tmp_path):
    target = tmp_path / "no" / "report.html"
    with pytest.raises(InputError):
        write_report(bare, target)
    assert list(tmp_path.iterdir()) == []


def test_the_figures_are_written_as_png(bare, tmp_path):
    written = write_figures(draw_all(bare), tmp_path / "figures")
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(path.name for path in written)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


@pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing() or "chromium is there")
def test_hover_keys_and_flip_book_work_in_chromium(result, images, tmp_path):
    path = tmp_path / "report.html"
    write_report(result, path, images)
    with chromium.browser(tmp_path / "profile") as page:
        page.open(path)
        page.hover("#canvas", 1, 1)
        row = column = 24
        mean, std = float(result.mean[row, column]), float(result.std[row, column])
        left, _, _, top = result.grid.extent
        x, y = left + (column + 0.5) * result.grid.voxel, top - (row + 0.5) * result.grid.voxel
        told = page.text("#readout").replace("−", "-")
        numbers = [float(text) for text in re.findall(r"-?\d+\.?\d*", told.replace("1/mm", "").replace("95 %", ""))]
        assert numbers[:2] == pytest.approx([x, y], abs=0.051)
        assert numbers[2:4] == pytest.approx([mean, std], abs=1e-4)
        assert numbers[4:6] == pytest.approx([mean - 1.96 * std, mean + 1.96 * std], abs=1e-4)

        page.keys("#canvas", "\ue014")
        assert f"x {x + result.grid.voxel:.1f} mm" in page.text("#readout").replace("−", "-")

        grey = (
            "const c = document.getElementById('canvas');"
            "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        )
        first = page.run(grey)
        page.click("#next")
        assert page.text("#count") == "sample 2 of 12"
        second = page.run(grey)
        assert first != second
        page.click("#previous")
        page.click("#previous")
        assert page.text("#count") == "sample 12 of 12"
        page.click("input[value=std]")
        pixels = np.array(page.run(grey)).reshape(-1, 4)
        assert (pixels[:, 0] != pixels[:, 2]).any()
        page.resize(360, 800)
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
        assert page.errors() == []


def test_scores_before_and_after_calibration_stand_in_one_row(result):
    tables_by_title = {title: (rows, head) for title, rows, head in tables.score_tables(result)}
    assert list(tables_by_title) == [
        "Rays of held-out views",
        "Against the truth",
        "Leave one angle out (closed form, network fixed)",
    ]
    rows, head = tables_by_title["Rays of held-out views"]
    assert head == ("score", "raw", "calibrated")
    assert ("rms z (1 is ideal)", "2.2", "1.01") in rows
    rows, _ = tables_by_title["Against the truth"]
    assert ("rms z (1 is ideal)", "3.06", "1.02") in rows
    assert ("log-likelihood a pixel, 7 × 7 patches", "", "4.5") in rows


def test_no_samples_are_no_trouble(bare, result):
    none = replace(bare, std=result.std, samples=result.samples[:0])
    assert "flipbook" not in render_report(none, draw_all(none))


def test_a_page_is_named_after_the_files_not_their_folders(result):
    moved = replace(result, scan=replace(result.scan, provenance=Provenance("/home/me/a.mat, /home/me/b.mat")))
    assert scan_name(moved) == "a.mat, b.mat"
    assert "/home/me" not in " ".join(sentences(moved))


HOSTILE = "\"><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">' {{ 7 * 7 }} $\\frac{"
RIGHT_TO_LEFT, ESCAPE = "abc\u202ecod.exe\u2066", "\x1b[2J\x1b]0;owned\x07\x00\ud800"


@pytest.fixture(scope="module")
def hostile(result):
    facts = {"sample": HOSTILE, HOSTILE: RIGHT_TO_LEFT, "citation": ESCAPE, "instrument": "y" * 1_000_000}
    told = Provenance(f"{HOSTILE}{RIGHT_TO_LEFT}{ESCAPE}.h5", "0f" * 32, (HOSTILE, "z" * 1_000_000), facts, (ESCAPE,))
    scan = replace(result.scan, provenance=told)
    return replace(result, scan=scan, warnings=(HOSTILE, RIGHT_TO_LEFT, ESCAPE), settings={HOSTILE: ESCAPE})


def test_text_of_a_file_is_shown_and_never_obeyed(hostile, images):
    page = render_report(hostile, images)
    assert "<script>document.title" not in page and "<img src=x" not in page and "{{ 7 * 7 }}" in page
    assert not set("\u202e\u2066\x1b\x07\x00\ud800") & set(page) and "\\u202e" in page and "\\x1b" in page
    assert page.encode("utf-8") and "y" * 3000 not in page and "z" * 3000 not in page
    assert len(page) < 6e6


def test_the_policy_allows_what_is_in_the_page_and_nothing_else(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'" and rules["img-src"] == "data:"
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


@pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing() or "chromium is there")
def test_a_hostile_file_does_nothing_in_chromium(hostile, images, tmp_path):
    path = tmp_path / "report.html"
    write_report(hostile, path, images)
    more = "<img src='https://example.org/a.png'><script>document.title='owned'</script></body>"
    (tmp_path / "foreign.html").write_text(path.read_text().replace("</body>", more))
    with chromium.browser(tmp_path / "profile") as page:
        page.open(path)
        page.hover("#canvas", 1, 1)
        page.click("#next")
        assert page.text("#count") == "sample 2 of 12" and page.messages() == []
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
        assert "owned" in page.run("return document.title") and page.run("return document.title").startswith("ctuq report: ")
        assert page.run("return document.querySelectorAll('main script, main iframe, header img').length") == 0
        page.open(tmp_path / "foreign.html")
        refused = " ".join(page.messages())
        assert "Content Security Policy" in refused and page.run("return document.title").startswith("ctuq report: ")
