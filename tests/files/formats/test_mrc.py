import bz2
import gzip

import numpy as np
import pytest
from scanned import misfit, predicted

from ctuq.errors import InputError
from ctuq.files import describe, read
from ctuq.tomo.geometry import ParallelBeam

mrcfile = pytest.importorskip("mrcfile")

DEGREES, PIXEL = np.arange(-60, 61, 4.0), 0.25
YAML = f"kind: parallel\nvalues: log\npixel: {PIXEL}\naxis_column: 39.5\n"


def _stack():
    """IMOD's convention: a point falls on x cos + z sin; the middle row of three sees the object."""
    beam = ParallelBeam(angles=np.deg2rad(DEGREES), columns=80, pixel=PIXEL)
    stack = np.zeros((len(DEGREES), 3, 80), np.float32)
    stack[:, 1] = predicted(beam)
    return stack


def _write(path, stack, order="<", angstrom=None):
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(stack.astype(stack.dtype.newbyteorder(order)))
        if angstrom is not None:
            file.voxel_size = angstrom
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["tilt.mrc", "tilt.ali", "TILT.ST", "tilt.rec", "tilt.MRCS", "tilt of a series"])
def test_stacks_of_any_name_and_byte_order_are_read_with_their_angles(tmp_path, name, order):
    path = _write(tmp_path / name, _stack(), order)
    stem = name.rpartition(".")[0] or name
    (tmp_path / f"{stem}.rawtlt").write_text("\n".join(f"{a:8.2f}" for a in DEGREES))
    (tmp_path / f"{stem}.yaml").write_text(YAML)
    scan = read(path)
    assert misfit(scan) < 1e-6 and np.allclose(np.rad2deg(scan.geometry.angles), DEGREES)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float16])
def test_numbers_of_every_mode_are_read(tmp_path, dtype):
    stack = np.round(_stack() * 100).astype(dtype)
    _write(tmp_path / "a.mrc", stack)
    (tmp_path / "a.yaml").write_text(YAML + "angles: {first: -60, step: 4, count: 31}\n")
    assert np.array_equal(read(tmp_path / "a.mrc").projections, stack[:, 1].astype(np.float32))


def test_bytes_of_imod_are_unsigned_unless_it_says_so(tmp_path):
    path = _write(tmp_path / "a.mrc", np.where(np.arange(8) % 2, 100, np.full((3, 3, 8), -56)).astype(np.int8))
    (tmp_path / "a.yaml").write_text("kind: parallel\nvalues: log\npixel: 1\nangles: [0, 60, 120]\n")
    assert read(path).projections[0, 0] == -56
    content = bytearray(path.read_bytes())
    content[152:160] = b"IMOD" + bytes(4)
    path.write_bytes(content)
    assert read(path).projections[0, 0] == 200


def test_the_pixel_is_that_of_the_header_in_angstrom(tmp_path):
    path = _write(tmp_path / "a.mrc", _stack(), angstrom=2.5e6)
    (tmp_path / "a.tlt").write_text("\n".join(f"{a}" for a in DEGREES))
    scan = read(path)
    assert scan.geometry.pixel == pytest.approx(PIXEL) and misfit(scan) < 1e-5
    assert any("line integrals, as nothing says otherwise" in text for text in scan.warnings)
    unknown = _write(tmp_path / "a.mrc", _stack(), angstrom=1.0)
    assert describe(unknown)[0].missing == ("pixel",)


def test_the_angles_of_serialem_are_those_of_each_section(tmp_path):
    path = _write(tmp_path / "a.st", _stack(), angstrom=2.5e6)
    order = np.random.default_rng(0).permutation(len(DEGREES))
    sections = [f"[ZValue = {n}]\r\nTiltAngle = {DEGREES[n]:g}\r\nStagePosition = 0 0\r\n" for n in order]
    (tmp_path / "a.st.mdoc").write_text("PixelSpacing = 2.5\r\n" + "\r\n".join(sections))
    assert misfit(read(path)) < 1e-5
    (tmp_path / "a.st.mdoc").write_text("[T = Tilt axis angle = 84.1]\nRotationAngle = 84.1\n" + "\n".join(sections))
    assert any("84.1° from the pictures' columns" in text for text in read(path).warnings)


def test_an_aligned_stack_takes_the_aligned_angles(tmp_path):
    path = _write(tmp_path / "Series 1_ali.mrc", _stack(), angstrom=2.5e6)
    (tmp_path / "Series 1.rawtlt").write_text("\n".join(f"{a + 1}" for a in DEGREES))
    (tmp_path / "series 1.TLT").write_text("\n".join(f"{a}".replace(".", ",") for a in DEGREES))
    assert misfit(read(path)) < 1e-5


@pytest.mark.parametrize(("end", "pack"), [("gz", gzip.compress), ("BZ2", bz2.compress)])
def test_packed_stacks_are_read(tmp_path, end, pack):
    path = _write(tmp_path / "a.mrc", _stack(), angstrom=2.5e6)
    (tmp_path / "a.rawtlt").write_text("\n".join(f"{a}" for a in DEGREES))
    packed = tmp_path / f"a.mrc.{end}"
    packed.write_bytes(pack(path.read_bytes()))
    assert misfit(read(packed)) < 1e-5
    packed.write_bytes(packed.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"truncated|whole|no type"):
        read(packed)


def test_a_single_section_is_a_sinogram(tmp_path):
    path = _write(tmp_path / "a.mrc", _stack()[:, 1])
    (tmp_path / "a.yaml").write_text(YAML + "angles: {first: -60, step: 4, count: 31}\n")
    assert misfit(read(path)) < 1e-6


def test_a_stack_can_be_the_flat_of_another(tmp_path):
    _write(tmp_path / "white.mrc", np.full((4, 3, 80), 900, np.int16))
    path = _write(tmp_path / "a.mrc", (900 * np.exp(-_stack())).astype(np.float32))
    text = YAML.replace("log", "counts") + "angles: {first: -60, step: 4, count: 31}\nflat: white.mrc\n"
    (tmp_path / "a.yaml").write_text(text)
    assert misfit(read(path)) < 1e-5


@pytest.mark.parametrize(
    ("at", "number", "words"),
    [(12, 4, "mode that is read"), (0, -1, "mode that is read"), (8, 10_000_000, "truncated"), (92, 10_000, "truncated")],
)
def test_a_header_that_cannot_be_is_refused(tmp_path, at, number, words):
    path = _write(tmp_path / "a.mrc", _stack())
    content = bytearray(path.read_bytes())
    content[at : at + 4] = int(number).to_bytes(4, "little", signed=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read(path)


def test_other_numbers_of_angles_and_words_are_refused(tmp_path):
    path = _write(tmp_path / "a.mrc", _stack())
    (tmp_path / "a.rawtlt").write_text("1\n2\n")
    with pytest.raises(InputError, match=r"31 sections but .* 2 angles"):
        read(path)
    (tmp_path / "a.rawtlt").write_text("north\n")
    with pytest.raises(InputError, match="one angle in degrees a line"):
        read(path)


def test_a_stack_of_sinograms_is_read_as_it_is_told(tmp_path):
    path = _write(tmp_path / "a.mrc", _stack().swapaxes(0, 1).copy())
    (tmp_path / "a.rawtlt").write_text("\n".join(f"{a:8.2f}" for a in DEGREES))
    (tmp_path / "a.yaml").write_text(YAML)
    with pytest.raises(InputError, match="3 sections but"):
        read(path)
    (tmp_path / "a.yaml").write_text(YAML + "stack: sinograms\n")
    scan = read(path)
    assert misfit(scan) < 1e-6 and scan.provenance.steps[0] == "row 1 of 3 read"
