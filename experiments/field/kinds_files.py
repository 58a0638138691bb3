"""Pictures, folders, HDF5 in parts, and scans in parts."""

import atexit
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

from experiments.field.judged import Kind
from experiments.field.scanned import (
    BEAM,
    COLUMNS,
    COUNTS,
    DARK,
    DEGREES,
    LINES,
    PIXEL,
    VIEWS,
    counted,
    dxchange,
    flats,
    geometry,
    integrals,
    picture,
)

_WRITER = "import h5py, sys, time; file = h5py.File(sys.argv[1], 'a'); print('open', flush=True); time.sleep(20)"


def pictures() -> list[Kind]:
    grey, lines = (LINES * 60).astype(np.uint8), LINES.astype("f4")
    text = geometry(values="log")
    colour = np.stack([grey] * 3, axis=-1)
    slices = np.stack([0.5 * lines, lines, 2 * lines, lines])
    square = np.stack([lines] * VIEWS)
    return [
        Kind("a colour picture", lambda f: picture(f / "a.tif", colour, text, photometric="rgb"), "refused", "colour"),
        Kind("a stack of sinograms", lambda f: picture(f / "a.tif", slices, text), "refused", "stack: sinograms"),
        Kind(
            "a stack of sinograms, told so",
            lambda f: picture(f / "a.tif", slices, text + "stack: sinograms\nrow: 1\n"),
            "image",
        ),
        Kind("as many sinograms as angles", lambda f: picture(f / "a.tif", square, text), "refused", "stack: sinograms"),
        Kind("DXchange in the order of rows", _by_rows, "image"),
        Kind("pages of two sizes", _two_sizes, "refused", "sizes"),
        Kind("a folder with its flats, told so", lambda f: _folder(f, "flat: flat_0.tif", "dark: dark_0.tif"), "image"),
        Kind("a folder with its flats", lambda f: _folder(f, f"flat: {BEAM + DARK:g}"), "refused", "several kinds"),
        Kind("a folder and a pattern", lambda f: _folder(f, f"flat: {BEAM + DARK:g}", "files: proj_*.tif"), "image"),
        Kind("a folder with hidden files of another system", _hidden, "image"),
        Kind("a folder in which a picture is missing", _gapped, "warned", "seems to be missing"),
        Kind("a folder named by angles of both signs", _signed, "image"),
        Kind("names in capitals", lambda f: picture(f / "A.TIF", lines, text).rename(f / "B.TIFF") and _renamed(f), "image"),
        Kind(
            "a number that YAML takes for text",
            lambda f: picture(f / "a.tif", lines, geometry("pixel: 3e-1", values="log")),
            "image",
        ),
        Kind(
            "a length with its unit close by",
            lambda f: picture(f / "a.tif", lines, geometry("pixel: 300um", values="log")),
            "image",
        ),
        Kind("a length with a unit", lambda f: picture(f / "a.tif", lines, geometry("pixel: 300 um", values="log")), "image"),
        Kind("a geometry file ending in .yml", _yml, "image"),
    ]


def _by_rows(folder: Path) -> Path:
    path = dxchange(
        folder / "a.h5",
        np.stack([COUNTS, COUNTS, COUNTS]),
        **{"exchange/data_white": np.repeat(flats(), 3, axis=1), "exchange/data_dark": None},
    )
    with h5py.File(path, "a") as file:
        file["exchange/data"].attrs["axes"] = "y:theta:x"
    path.with_suffix(".yaml").write_text(f"dark: {DARK:g}\n")
    return path


def _two_sizes(folder: Path) -> Path:
    import tifffile

    with tifffile.TiffWriter(folder / "a.tif") as file:
        file.write(LINES.astype("f4"), photometric="minisblack")
        file.write(LINES[:10, :10].astype("f4"), photometric="minisblack")
    (folder / "a.yaml").write_text(geometry(values="log"))
    return folder / "a.tif"


def _folder(folder: Path, *lines: str) -> Path:
    scan = folder / "scan"
    scan.mkdir()
    for number, view in enumerate(COUNTS):
        picture(scan / f"proj_{number}.tif", view[None].astype("u2"))
    for name, level in (("flat", BEAM), ("dark", 0)):
        picture(scan / f"{name}_0.tif", flats(level)[0].astype("u2"))
    (scan / "geometry.yaml").write_text(geometry(*lines))
    return scan


def _hidden(folder: Path) -> Path:
    scan = _folder(folder, "flat: flat_0.tif", "dark: dark_0.tif")
    for number in range(VIEWS):
        (scan / f"._proj_{number}.tif").write_bytes(b"Mac OS X")
    return scan


def _gapped(folder: Path) -> Path:
    scan = _folder(folder, "flat: flat_0.tif", "dark: dark_0.tif")
    (scan / "proj_30.tif").unlink()
    (scan / "geometry.yaml").write_text(geometry("flat: flat_0.tif", "dark: dark_0.tif", views=47))
    return scan


def _signed(folder: Path) -> Path:
    scan = folder / "scan"
    scan.mkdir()
    for degrees in range(-90, 90, 4):
        values = integrals(np.array([degrees])).astype("f4")
        picture(scan / f"view_{degrees}.tif", values)
    text = geometry("angles: {first: -90, step: 4, count: 45}", values="log")
    (scan / "geometry.yaml").write_text(text)
    return scan


def _renamed(folder: Path) -> Path:
    (folder / "A.yaml").rename(folder / "b.YAML")
    return folder / "B.TIFF"


def _yml(folder: Path) -> Path:
    path = picture(folder / "a.tif", LINES.astype("f4"), geometry(values="log"))
    path.with_suffix(".yaml").rename(folder / "a.yml")
    return path


def _virtual(folder: Path, *, missing: bool = False, short: bool = False) -> Path:
    path = dxchange(folder / "scan.h5")
    layout = h5py.VirtualLayout((VIEWS, 1, COLUMNS), "f8")
    for part in range(3):
        views = slice(16 * part, 16 * part + 16)
        count = 10 if short and part == 2 else 16
        if not (missing and part == 1):
            with h5py.File(folder / f"raw{part}.h5", "w") as file:
                file["data"] = COUNTS[views, None][:count]
        layout[views] = h5py.VirtualSource(f"raw{part}.h5", "data", (16, 1, COLUMNS))
    with h5py.File(path, "a") as file:
        del file["exchange/data"]
        file.create_virtual_dataset("exchange/data", layout)
    return path


def _linked(folder: Path, link: h5py.ExternalLink | h5py.SoftLink) -> Path:
    path = dxchange(folder / "a.h5", **{"exchange/data": None})
    with h5py.File(path, "a") as file:
        file["exchange/data"] = link
    return path


def _all_linked(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file["exchange"] = h5py.ExternalLink("raw.h5", "exchange")
    return folder / "a.h5"


def _nested(folder: Path) -> Path:
    shape = (VIEWS, 1, COLUMNS)
    for name, source in (("middle.h5", "deep.h5"), ("top.h5", "middle.h5")):
        layout = h5py.VirtualLayout(shape, "f8")
        layout[:] = h5py.VirtualSource(source, "exchange/data", shape)
        dxchange(folder / name, **{"exchange/data": None})
        with h5py.File(folder / name, "a") as file:
            file.create_virtual_dataset("exchange/data", layout)
    return folder / "top.h5"


def _aborted(folder: Path) -> Path:
    path = dxchange(folder / "a.h5", **{"exchange/data": None})
    with h5py.File(path, "a") as file:
        data = file.create_dataset("exchange/data", (VIEWS, 1, COLUMNS), "f8", chunks=(1, 1, COLUMNS))
        data[:40] = COUNTS[:40, None]
    return path


def _written(folder: Path) -> Path:
    path = dxchange(folder / "a.h5")
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE)
    atexit.register(writer.kill)
    assert writer.stdout is not None
    writer.stdout.readline()
    return path


def _capitals(folder: Path) -> Path:
    path = dxchange(folder / "a.h5")
    with h5py.File(path, "a") as file:
        file.move("exchange", "Exchange")
        for name in ("data", "theta"):
            file.move(f"Exchange/{name}", f"Exchange/{name.capitalize()}")
    return path


def _parts(folder: Path, *, other: float = 1.0, pixel: float = PIXEL) -> list[Path]:
    halves = [slice(None, None, 2), slice(1, None, 2)]
    sizes = [PIXEL, pixel]
    name = "measurement/instrument/detector/actual_pixel_size_x"
    return [
        dxchange(
            folder / f"part{n}.h5", counted(LINES[half] * (other if n else 1)), DEGREES[half], axis=None, **{name: sizes[n]}
        )
        for n, half in enumerate(halves)
    ]


def _elsewhere(folder: Path) -> list[Path]:
    objects = ((0.05, 2, 1, 4),), ((0.05, -3, -2, 4),)
    return [
        dxchange(folder / f"{n}.h5", counted(integrals(discs=discs))[n::2], DEGREES[n::2]) for n, discs in enumerate(objects)
    ]


def files() -> list[Kind]:
    return [
        Kind("a virtual dataset, whole", _virtual, "image"),
        Kind("a virtual dataset without one source", lambda f: _virtual(f, missing=True), "refused", r"raw1\.h5"),
        Kind("a virtual dataset with a short source", lambda f: _virtual(f, short=True), "refused", r"raw2\.h5"),
        Kind("a link to a file that is missing", lambda f: _linked(f, h5py.ExternalLink("raw.h5", "d")), "refused", r"raw\.h5"),
        Kind("a group that is a link to a missing file", _all_linked, "refused", r"raw\.h5"),
        Kind("a virtual dataset of virtual datasets without a source", _nested, "refused", r"deep\.h5"),
        Kind("a link to nowhere", lambda f: _linked(f, h5py.SoftLink("/entry/data")), "refused", "/entry/data"),
        Kind("an aborted scan", _aborted, "warned", "left out"),
        Kind("a file that is still written", _written, "refused", "writes to it"),
        Kind("groups in capitals", _capitals, "image"),
        Kind("two halves of a scan, the axis to be found", _parts, "image", "found at column"),
        Kind("parts of different objects", lambda f: _parts(f, other=1.6), "warned", "differently"),
        Kind("parts of one kind at different places", _elsewhere, "warned", "strays"),
        Kind("parts of different detectors", lambda f: _parts(f, pixel=0.4), "refused", "detector"),
    ]
