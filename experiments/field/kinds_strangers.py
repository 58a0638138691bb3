"""Pictures, geometry files and arrays as strangers write them: byte orders, encodings, marks of decimals, names, links."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from skimage.io import imsave

from experiments.field.judged import Kind
from experiments.field.scanned import (
    BEAM,
    COUNTS,
    DEGREES,
    LINES,
    VIEWS,
    Make,
    array,
    counted,
    dxchange,
    flats,
    geometry,
    integrals,
    nxtomo,
    picture,
    plain_frames,
)

_LOG = geometry(values="log")


def _text(change: Callable[[bytes], bytes], *lines: str) -> Make:
    """A picture of line integrals whose geometry file is written as bytes."""

    def make(folder: Path) -> Path:
        path = picture(folder / "a.tif", LINES.astype("f4"))
        path.with_suffix(".yaml").write_bytes(change(geometry(*lines, values="log").encode()))
        return path

    return make


def _angles_file(content: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / "angles.txt").write_bytes(content)
        return _text(lambda text: text, "angles: angles.txt")(folder)

    return make


def _folder(change: Callable[[int, np.ndarray], np.ndarray] = lambda number, view: view) -> Callable[[Path], Path]:
    """A folder of one-row pictures of counts."""

    def make(folder: Path) -> Path:
        scan = folder / "scan"
        scan.mkdir()
        for number, view in enumerate(COUNTS):
            tifffile.imwrite(scan / f"p{number:03d}.tif", change(number, view[None].astype("u2")), photometric="minisblack")
        (scan / "geometry.yaml").write_text(geometry())
        return scan

    return make


def _mixed(number: int, view: np.ndarray) -> np.ndarray:
    return (view // 256).astype("u1") if number >= 24 else view


def _corrupt(folder: Path) -> Path:
    scan = _folder()(folder)
    path = scan / "p017.tif"
    path.write_bytes(path.read_bytes()[:-40])
    return scan


def _litter(folder: Path) -> Path:
    scan = _folder()(folder)
    for name in ("Thumbs.db", ".DS_Store", "notes.txt", "scan.log"):
        (scan / name).write_bytes(b"[notes]\nnothing\n")
    return scan


def _alpha(folder: Path) -> Path:
    grey = (LINES * 100).astype("u1")
    imsave(folder / "a.png", np.stack([grey, np.full_like(grey, 255)], axis=-1), check_contrast=False)
    (folder / "a.yaml").write_text(geometry("scale: 1e-2", values="log"))
    return folder / "a.png"


def pictures() -> list[Kind]:
    lines = LINES.astype("f4")
    big = {"byteorder": ">"}
    return [
        Kind("a big-endian TIFF", lambda f: picture(f / "a.tif", lines, _LOG, **big), "image"),
        Kind("a big-endian BigTIFF", lambda f: picture(f / "a.tif", lines, _LOG, bigtiff=True, **big), "image"),
        Kind("a stack of pictures of one row", lambda f: picture(f / "a.tif", lines[:, None], _LOG), "image"),
        Kind("float16 line integrals", lambda f: picture(f / "a.tif", LINES.astype("f2"), _LOG), "image"),
        Kind("float64 counts", lambda f: picture(f / "a.tif", COUNTS.astype("f8"), geometry()), "image"),
        Kind("32 bit counts", lambda f: picture(f / "a.tif", COUNTS.astype("u4"), geometry()), "image"),
        Kind("a stack of four axes", lambda f: picture(f / "a.tif", np.stack([[lines] * 3] * 2), _LOG), "refused", "shape"),
        Kind("a grey picture with alpha", _alpha, "refused", "colour|alpha"),
        Kind("pictures of two types of numbers in a folder", _folder(_mixed), "refused", "uint8"),
        Kind("one damaged picture in a folder", _corrupt, "refused", r"p017\.tif"),
        Kind("a folder with litter of systems", _litter, "image"),
        Kind(
            "a turned square picture",
            lambda f: picture(
                f / "a.tif", integrals(np.arange(64) * 180 / 64).T.astype("f4"), geometry(values="log", views=64)
            ),
            "warned",
            "attenuate|strays|angles run",
        ),
    ]


def texts() -> list[Kind]:
    degrees = [f"{angle:.3f}" for angle in DEGREES]
    spans = [f"{angle:.3f}".replace(".", ",") for angle in DEGREES]
    return [
        Kind("Windows line ends", _text(lambda text: text.replace(b"\n", b"\r\n")), "image"),
        Kind("a byte order mark", _text(lambda text: b"\xef\xbb\xbf" + text), "image"),
        Kind("a geometry file in UTF-16", _text(lambda text: text.decode().encode("utf-16")), "image"),
        Kind("a tab before a key", _text(lambda text: text.replace(b"kind", b"\tkind")), "refused", "YAML at line 1"),
        Kind("keys in capitals", _text(lambda text: text.replace(b"pixel", b"Pixel")), "refused", "unknown key"),
        Kind("words in capitals", _text(lambda text: text.replace(b": parallel", b": Parallel")), "image"),
        Kind("a kind that is none", _text(lambda text: text.replace(b": parallel", b": cone")), "refused", "a cone is a fan"),
        Kind("a unit in capitals", _text(lambda text: text, "pixel: 0.3 MM"), "image"),
        Kind("a decimal comma", _text(lambda text: text, "pixel: 0,3"), "refused", "'pixel'"),
        Kind("a decimal comma and a unit", _text(lambda text: text, "pixel: 0,3 mm"), "refused", "'pixel'"),
        Kind("a negative pixel", _text(lambda text: text, "pixel: -0.3"), "refused", "'pixel'"),
        Kind("a file of angles, Windows", _angles_file(b"\xef\xbb\xbf" + "\r\n".join(degrees).encode()), "image"),
        Kind("a file of angles with decimal commas", _angles_file("\n".join(spans).encode()), "refused", "decimals"),
        Kind("a file of angles with a heading", _angles_file(("angle\n" + "\n".join(degrees)).encode()), "image"),
        Kind(
            "a file of numbered angles",
            _angles_file("\n".join(f"{n} {a}" for n, a in enumerate(degrees)).encode()),
            "image",
        ),
        Kind("a comment behind a value", _text(lambda text: text.replace(b"0.3\n", b"0.3   # mm, at the detector\n")), "image"),
    ]


def _linked(folder: Path) -> Path:
    (folder / "store").mkdir()
    path = picture(folder / "store" / "a.tif", LINES.astype("f4"), _LOG)
    (folder / "link.tif").symlink_to(path)
    (folder / "link.yaml").symlink_to(path.with_suffix(".yaml"))
    return folder / "link.tif"


def _named(folder: Path) -> Path:
    place = folder / "Scan vom 3. März [neu] (2)"
    place.mkdir()
    return picture(place / "probe #7 — été.tif", LINES.astype("f4"), _LOG)


def _order(order: np.ndarray, *, told: np.ndarray | None = None) -> Make:
    """Views at the angles of an order, told as these or others."""
    counts = counted(integrals(order))
    return lambda folder: dxchange(folder / "a.h5", counts, order if told is None else told)


def _keyless(folder: Path) -> Path:
    path = nxtomo(folder / "a.nx", plain_frames())
    with h5py.File(path, "a") as file:
        del file["entry/instrument/detector/image_key"], file["entry/instrument/detector/image_key_control"]
    return path


def _text_numbers(folder: Path) -> Path:
    return dxchange(folder / "a.h5", theta=np.array([f"{angle:.3f}" for angle in DEGREES], dtype="S8"))


def arrays() -> list[Kind]:
    turn = np.mod(200 + np.arange(VIEWS) * 7.5, 360)
    none: dict[str, Any] = {"exchange/data_white": None, "exchange/data_dark": None}
    hole, column = flats().copy(), LINES.copy()
    hole[:, :, 20], column[:, 20] = np.nan, np.nan
    halves = np.linspace(0, 360, VIEWS, endpoint=False)
    return [
        Kind("angles that descend", _order(DEGREES[::-1]), "image"),
        Kind("angles that pass 360", _order(turn), "image"),
        Kind("a first view again at the end", _order(np.linspace(0, 360, VIEWS)), "image"),
        Kind("a first view mirrored at the end", _order(np.linspace(0, 180, VIEWS)), "image"),
        Kind("a whole turn told as half of one", _order(halves, told=halves / 2), "warned", "twice as far"),
        Kind("half a turn told as a whole one", _order(DEGREES, told=2 * DEGREES), "warned", "half as far"),
        Kind(
            "line integrals in place of counts",
            lambda f: dxchange(f / "a.h5", LINES, **none),
            "refused",
            "line integrals|transmission",
        ),
        Kind("a column of NaN", lambda f: array(f / "a.npz", column), "image", "48 bad rays"),
        Kind(
            "a column of NaN in the flats", lambda f: dxchange(f / "a.h5", **{"exchange/data_white": hole}), "image", "48 bad"
        ),
        Kind(
            "a dark above the flat",
            lambda f: dxchange(f / "a.h5", **{"exchange/data_dark": flats(2 * BEAM)}),
            "refused",
            "dark",
        ),
        Kind("an NXtomo without image keys", _keyless, "refused", "image_key|angles|flats"),
        Kind("angles as texts in HDF5", _text_numbers, "refused", "angles"),
        Kind("float16 counts", lambda f: dxchange(f / "a.h5", COUNTS.astype("f2")), "image"),
        Kind("big-endian counts", lambda f: dxchange(f / "a.h5", COUNTS.astype(">u2")), "image"),
        Kind("a Fortran array", lambda f: _npy(f, np.asfortranarray(LINES)), "image"),
        Kind("a big-endian array", lambda f: _npy(f, LINES.astype(">f4")), "image"),
        Kind("numbers as text", _csv, "refused", "no type"),
        Kind("a link to a scan", _linked, "image"),
        Kind("names with spaces, brackets and accents", _named, "image"),
        Kind("angles in one column", _order(DEGREES, told=DEGREES[:, None]), "image"),
    ]


def _npy(folder: Path, values: np.ndarray) -> Path:
    np.save(folder / "a.npy", values)
    (folder / "a.yaml").write_text(_LOG)
    return folder / "a.npy"


def _csv(folder: Path) -> Path:
    np.savetxt(folder / "a.csv", LINES, delimiter=",")
    (folder / "a.yaml").write_text(_LOG)
    return folder / "a.csv"
