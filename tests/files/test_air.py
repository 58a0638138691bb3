"""Air that a geometry file says is at the detector's edges."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image
from scanned import misfit, predicted

from ctuq.errors import InputError
from ctuq.files import describe, read
from ctuq.files.formats.raw import Raw
from ctuq.files.override import overridden
from ctuq.files.sidecar import Sidecar, read_sidecar, treated, treatment
from ctuq.tomo.air import air_of_views
from ctuq.tomo.geometry import ParallelBeam

BEAM = ParallelBeam(angles=np.deg2rad(np.arange(30) * 6.0), columns=80, pixel=0.25)
TOLD = "kind: parallel\nangles: {first: 0, step: 6, count: 30}\npixel: 0.25\naxis_column: 39.5\n"


@pytest.mark.parametrize("values", ["counts", "log"])
def test_a_beam_that_faded_after_its_flats_is_put_right_by_the_edges(tmp_path, values):
    """As of Savu's test scan, whose air transmits two thirds of its flat."""
    faded = np.linspace(0.7, 0.6, 30)[:, None]
    projections = predicted(BEAM) - np.log(faded)
    stored = 20000 * np.exp(-projections) if values == "counts" else projections
    tifffile.imwrite(tmp_path / "a.tif", stored.astype(np.float32), photometric="minisblack")
    told = TOLD + f"values: {values}\n" + ("flat: 20000\n" if values == "counts" else "")
    (tmp_path / "a.yaml").write_text(told)
    assert misfit(read(tmp_path / "a.tif")) > 0.1
    (tmp_path / "a.yaml").write_text(told + "air: edges\n")
    scan = read(tmp_path / "a.tif")
    assert misfit(scan) < 1e-5
    (text,) = (text for text in scan.warnings if "Air is taken from the 5 first and the 5 last" in text)
    assert "0.357 to 0.511" in text


def test_edges_that_see_the_object_are_told_and_bad_rays_count_for_nothing():
    projections = np.full((4, 64), 0.3)
    projections[:, 20:40] = 2.0
    weights = np.ones_like(projections)
    projections[1, 0], weights[1, 0] = 50.0, 0.0
    weights[2, :8] = weights[2, -8:] = 0.0
    levels, told = air_of_views(projections, weights)
    assert np.allclose(levels, 0.3) and len(told) == 1
    projections[3, -4:] = 0.6
    assert any("sees more than air" in text for text in air_of_views(projections, weights)[1])


def test_the_word_is_kept_and_no_other_is_taken(tmp_path):
    kept = treatment(Sidecar(air="edges"))
    assert treated(kept).air == "edges"
    raw = Raw("picture", np.ones((4, 8)), "log", {})
    assert overridden(raw, treated(kept)).air_at_edges and not overridden(raw, Sidecar()).air_at_edges
    assert overridden(replace(raw, air_at_edges=True), Sidecar()).air_at_edges
    (tmp_path / "a.yaml").write_text("air: 0.3\n")
    with pytest.raises(InputError, match="'air'"):
        read_sidecar(tmp_path / "a.yaml")


@pytest.mark.parametrize("drift", [0.0, 0.08])
def test_pictures_that_are_bright_beside_the_object_are_no_line_integrals(tmp_path, drift):
    """Of 8 bit with 5 % of noise a hundredth of all rays is brighter than the air: the picture was turned inside out untold."""
    rng, angles = np.random.default_rng(0), np.arange(60) * np.pi / 60
    s = np.arange(128) - 63.5
    rays = 0.024 * np.sqrt(np.clip(20**2 - (s - 10 * np.cos(angles)[:, None]) ** 2, 0, None))
    bright = 25 * np.exp(-rays) * (1 + rng.normal(0, drift, (60, 1))) * (1 + rng.normal(0, 0.05, rays.shape))
    Image.fromarray(bright.round().astype(np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.yaml").write_text("kind: parallel\nangles: {first: 0, step: 3, count: 60}\npixel: 1\n")
    with pytest.raises(InputError, match="largest at the detector's edges"):
        read(tmp_path / "a.png")
    told = describe(tmp_path / "a.png")[0]
    assert not told.missing and told.refused.startswith("its values are largest at the detector's edges")
    with (tmp_path / "a.yaml").open("a") as file:
        file.write("values: counts\nflat: 25\n")
    assert read(tmp_path / "a.png").projections[:, 50:70].mean() > 0.3
