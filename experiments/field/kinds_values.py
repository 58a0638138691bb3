"""Values that cannot be right, bad rays and small objects that look like them, and beams that drift."""

from pathlib import Path

import numpy as np

from experiments.field.judged import Kind
from experiments.field.scanned import (
    AXIS,
    BEAM,
    COLUMNS,
    COUNTS,
    DARK,
    DEGREES,
    LINES,
    VIEWS,
    array,
    counted,
    dxchange,
    flats,
    geometry,
    integrals,
    nxtomo,
    picture,
)


def _without_flats(folder: Path, text: str = "", counts=COUNTS) -> Path:
    path = dxchange(folder / "a.h5", counts, **{"exchange/data_white": None, "exchange/data_dark": None})
    if text:
        path.with_suffix(".yaml").write_text(text)
    return path


def values() -> list[Kind]:
    transmission = (COUNTS - DARK) / BEAM
    bare = geometry(values="log").replace("values: log\n", "")
    saturated = np.minimum(COUNTS * 4, 65535).astype(np.uint16)
    white = np.full((3, 1, COLUMNS), 65535, np.uint16)
    low = np.minimum(counted(LINES, 5000), 4095)
    clipped = {"exchange/data_white": np.full((3, 1, COLUMNS), 4095.0)}
    return [
        Kind("counts without flats", _without_flats, "refused", "flat"),
        Kind(
            "counts without flats, open beam told",
            lambda folder: _without_flats(folder, f"flat: {BEAM + DARK}\ndark: {DARK}\n"),
            "image",
        ),
        Kind("transmission in per cent", lambda folder: _without_flats(folder, counts=100 * transmission), "refused", "trans"),
        Kind("transmission", lambda folder: _without_flats(folder, counts=transmission), "image", "taken as transmission"),
        Kind(
            "flats of a tenth of the exposure",
            lambda folder: dxchange(folder / "a.h5", **{"exchange/data_white": flats(BEAM / 10)}),
            "refused",
            "flats",
        ),
        Kind(
            "flats of less exposure",
            lambda folder: dxchange(folder / "a.h5", **{"exchange/data_white": flats(BEAM / 1.5)}),
            "warned",
            "exposure",
        ),
        Kind(
            "flats and darks swapped",
            lambda folder: dxchange(folder / "a.h5", **{"exchange/data_white": flats(0), "exchange/data_dark": flats()}),
            "refused",
            "flats",
        ),
        Kind(
            "a picture of counts that nobody calls so",
            lambda f: picture(f / "a.tif", COUNTS.astype("u2"), bare),
            "refused",
            "counts",
        ),
        Kind(
            "a picture of transmission that nobody calls so",
            lambda folder: picture(folder / "a.tif", transmission.astype("f4"), bare),
            "refused",
            "transmission",
        ),
        Kind(
            "16 bit pictures of line integrals",
            lambda f: picture(f / "a.tif", (LINES * 2e4).astype("u2"), geometry(values="log")),
            "warned",
            "arbitrary",
        ),
        Kind("log(I / I0), the sign not turned", lambda folder: array(folder / "a.npz", -LINES), "refused", "negative"),
        Kind("nothing but zeros", lambda folder: array(folder / "a.npz", 0 * LINES), "refused", "0"),
        Kind("nothing but NaN", lambda folder: array(folder / "a.npz", np.nan * LINES), "refused", "NaN"),
        Kind("flats without darks", lambda f: dxchange(f / "a.h5", **{"exchange/data_dark": None}), "warned", "no darks"),
        Kind("flats among the views", lambda f: dxchange(f / "a.h5", _with_flats()), "warned", "2 of 48 views"),
        Kind("unsigned counts saved as signed ones", _wrapped, "refused", "far below 0"),
        Kind("a row of air", lambda f: dxchange(f / "a.h5", counted(0 * LINES)), "warned", "no shadow"),
        Kind("a scale of 0", lambda folder: array(folder / "a.npz", LINES, "scale: 0\n"), "refused", "scale"),
        Kind(
            "a saturated detector of 16 bits",
            lambda f: dxchange(f / "a.h5", saturated, **{"exchange/data_white": white}),
            "warned",
            "65535",
        ),
        Kind("a saturated detector of 12 bits", lambda f: dxchange(f / "a.h5", low, **clipped), "warned", "4095"),
        Kind("rays that are NaN or infinite", _with_gaps, "image", "bad rays"),
        Kind("a view that is NaN", lambda folder: array(folder / "a.npz", _without_view(np.nan)), "image", "left out"),
        Kind("views of zeros, the shutter closed", lambda folder: dxchange(folder / "a.h5", _shut()), "image", "left out"),
    ]


def _with_gaps(folder: Path) -> Path:
    values = LINES.copy()
    values[3, 10], values[5, 30], values[9, 40:43] = np.nan, np.inf, np.nan
    return array(folder / "a.npz", values)


def _without_view(value: float) -> np.ndarray:
    values = LINES.copy()
    values[7] = value
    return values


def _wrapped(folder: Path) -> Path:
    bright = {"exchange/data_white": flats(2 * BEAM + DARK), "exchange/data_dark": flats(DARK)}
    return dxchange(folder / "a.h5", (2 * COUNTS).astype("u2").view("i2"), **bright)


def _with_flats() -> np.ndarray:
    values = COUNTS.copy()
    values[[0, 47]] = counted(0 * LINES[:2])
    return values


def _shut() -> np.ndarray:
    values = COUNTS.copy()
    values[[3, 20]] = 0
    return values


_WIRE = ((0.005, 0, 0, 4), (1.0, 0, 0, 0.2))
_BEAD = ((0.01, 0, 0, 4), (2.0, 7.3, 0, 0.18))


def _wire(discs, axis: float = 32.0, noise: bool = True):
    lines = integrals(axis=axis, discs=discs)
    return counted(lines) if noise else lines


def defects() -> list[Kind]:
    zinger, hot = COUNTS.copy(), COUNTS.copy()
    zinger[[4, 20, 33], [20, 30, 41]] = 60000
    hot[:, 50] = DARK + (hot[:, 50] - DARK) * 0.3
    return [
        Kind("cosmic rays", lambda f: dxchange(f / "a.h5", zinger), "image", "3 bad rays"),
        Kind("a hot column away from the axis", lambda f: dxchange(f / "a.h5", hot), "image", "48 bad rays"),
        Kind(
            "a column known to be bad", lambda f: array(f / "a.npz", _spoilt(), "bad_columns: [40]\n"), "image", "48 bad rays"
        ),
        Kind(
            "a wire on the axis, line integrals",
            lambda f: array(f / "a.npz", _wire(_WIRE, noise=False), axis_column=32.0),
            "image",
            "Column 32 stands out",
            _WIRE,
            32.0,
        ),
        Kind(
            "a wire on the axis, counts",
            lambda f: dxchange(f / "a.h5", _wire(_WIRE), axis=32.0),
            "image",
            "Column 32 stands out",
            _WIRE,
            32.0,
        ),
        Kind(
            "a bead far from the axis, line integrals",
            lambda f: array(f / "a.npz", _wire(_BEAD, AXIS, False)),
            "image",
            "",
            _BEAD,
        ),
        Kind(
            "a bead far from the axis, counts",
            lambda f: dxchange(f / "a.h5", _wire(_BEAD, AXIS)),
            "image",
            "",
            _BEAD,
        ),
        Kind(
            "a bead far from the axis, transmission",
            lambda f: array(f / "a.npz", np.exp(-_wire(_BEAD, AXIS, False)), values="transmission"),
            "image",
            "",
            _BEAD,
        ),
    ]


def _spoilt() -> np.ndarray:
    values = LINES.copy()
    values[:, 40] += 1
    return values


def beams() -> list[Kind]:
    falling = BEAM * (1 - 0.3 * np.arange(VIEWS) / VIEWS)[:, None]
    views = counted(LINES, falling)
    before, after, half = (flats(level)[:, 0] for level in (BEAM, 0.7 * BEAM, 0.85 * BEAM))
    dark = (2, np.zeros(1), flats(0, 2)[:, 0])
    ends = [dark, (1, np.zeros(1), before), (0, DEGREES, views), (1, np.zeros(1), after)]
    between = [
        dark,
        (1, np.zeros(1), before),
        (0, DEGREES[:24], views[:24]),
        (1, np.zeros(1), half),
        (0, DEGREES[24:], views[24:]),
    ]
    text = geometry(f"flat: {BEAM + DARK:g}", f"flat_after: {0.7 * BEAM + DARK:g}")
    both = np.concatenate([flats(BEAM), flats(0.7 * BEAM)])
    return [
        Kind("flats before and after, the beam falls", lambda f: nxtomo(f / "a.nx", ends), "image", "interpolated"),
        Kind(
            "flats between, the beam falls",
            lambda f: nxtomo(f / "a.nx", [*between, (1, np.zeros(1), after)]),
            "image",
            "interp",
        ),
        Kind(
            "flats of after the scan in a geometry file",
            lambda f: picture(f / "a.tif", views.astype("f4"), text),
            "image",
            "interp",
        ),
        Kind(
            "flats that differ, nobody says when",
            lambda f: dxchange(f / "a.h5", views, **{"exchange/data_white": both}),
            "warned",
            "drifts",
        ),
    ]
