"""The experiment on glyphs: its objects, its rows, and its figure from these alone."""

import gzip
import hashlib

import numpy as np
import pytest

from ctuq.errors import InputError
from experiments.glyphs import __main__ as glyphs
from experiments.glyphs import objects
from experiments.glyphs.drawing import mean_of


@pytest.fixture
def folder(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28)).astype(np.uint8)
    packed = gzip.compress(b"\x00\x00\x08\x03" + np.array([3, 28, 28], ">i4").tobytes() + pixels.tobytes())
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(packed)
    monkeypatch.setitem(objects.CHECKSUMS, hashlib.md5(packed).hexdigest(), "made")
    return tmp_path, pixels


def test_images_are_read_and_their_checksum_is_looked_at(folder):
    path, pixels = folder
    name, found = objects.images_of(path)
    assert name == "made"
    np.testing.assert_array_equal(found, pixels)
    scan = objects.scan_of(1, 7, 0.05, found)
    np.testing.assert_allclose(scan.truth, objects.ATTENUATION * pixels[1] / 255, atol=1e-6)
    assert scan.n_angles == 7
    file = path / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(InputError, match="not the published file"):
        objects.images_of(path)
    file.unlink()
    with pytest.raises(InputError, match="has no file"):
        objects.images_of(path)


def test_rows_are_made_once_and_drawn_from_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(glyphs, "TABLE", tmp_path / "glyphs.csv")
    given = dict(angles=(5, 8), noises=(0.05,), only="tv, constant;fbp")
    with pytest.raises(SystemExit, match="no kind 'fbp'"):
        glyphs.main(images=1, **given)
    given["only"] = "tv, constant"
    glyphs.main(images=1, **given)
    glyphs.main(images=2, **given)
    rows = glyphs.Rows(tmp_path / "glyphs.csv").rows
    assert [(row["image"], row["angles"]) for row in rows] == [(0, 5), (0, 8), (1, 5), (1, 8)]
    assert all(row["log_likelihood_patch_1"] == row["log_likelihood_full"] for row in rows)  # one number: independent pixels
    assert (tmp_path / "glyphs.png").is_file() and (tmp_path / "glyphs.pdf").is_file()
    before = (tmp_path / "glyphs.png").read_bytes()
    monkeypatch.setattr(glyphs, "measured", lambda *_: pytest.fail("nothing is to be made"))
    glyphs.main(draw=True)
    assert (tmp_path / "glyphs.png").read_bytes() == before
    assert "| glyph, 5%, 8 | tv, constant | 2 |" in capsys.readouterr().out


def test_samples_give_patches_of_every_size():
    found = glyphs.measured(objects.scan_of(0, 10, 0.05), "tv, edge prior", 0)
    sizes = [found[f"log_likelihood_{p}"] for p in ("patch_1", "patch_14", "full")]
    assert np.isfinite(sizes).all() and len(set(sizes)) == 3
    assert found["psnr"] > 12 and 0 < found["cover_95_object"] <= 1


def test_a_standard_error_is_that_of_a_mean():
    mean, error = mean_of([{"a": 1.0}, {"a": 3.0}], "a")
    assert (mean, error) == (2.0, 1.0) and np.isnan(mean_of([{"a": 1.0}], "a")[1])
