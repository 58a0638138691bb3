"""Pixel sizes and angles as other programs leave them."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.field.judged import Kind
from experiments.field.scanned import (
    COUNTS,
    DEGREES,
    LINES,
    PIXEL,
    VIEWS,
    Make,
    array,
    counted,
    dxchange,
    flats,
    integrals,
    nxtomo,
    plain_frames,
)


def _unit(word: str, value: float | bytes) -> Make:
    name = "measurement/instrument/detector/actual_pixel_size_x"
    nodes: dict[str, Any] = {"unit": word, name: value}
    return lambda folder: dxchange(folder / "a.h5", **nodes)


def _lens(folder: Path) -> Path:
    camera = "measurement/instrument/detector/"
    lens = {"measurement/instrument/detection_system/objective/magnification": 10.0}
    return dxchange(
        folder / "a.h5",
        **lens,
        **{camera + "actual_pixel_size_x": None, camera + "pixel_size_x": PIXEL * 10 / 1e3},
    )


def units() -> list[Kind]:
    words = {"\N{GREEK SMALL LETTER MU}m": 300, "\N{MICRO SIGN}m": 300, "Micrometers": 300, "micrometre": 300, "um/pixel": 300}
    words |= {"millimetre": 0.3, "[mm]": 0.3, "inch": 0.3 / 25.4, "nanometers": 3e5, "m": 3e-4}
    return [
        *(Kind(f"pixel in {word}", _unit(word, value), "image") for word, value in words.items()),
        Kind("pixel in an unknown unit", _unit("furlong", 0.3), "refused", "furlong"),
        Kind("pixel of 1 pixel", _unit("pixel", 1.0), "warned", "no pixel size"),
        Kind("pixel in metres without saying so", _unit("", 3e-4), "image", "taken as metres"),
        Kind("pixel without a unit", _unit("", 0.3), "refused", "without a unit"),
        Kind("pixel as a text", _unit("", np.bytes_("0.3 mm")), "warned", "no pixel size"),
        Kind("pixel of 1e-300 mm", _unit("mm", 1e-300), "refused", "1e-300"),
        Kind("pixel of the camera and its lens", _lens, "image", "magnification of 10"),
        Kind(
            "NXtomo with pixels of camera and sample",
            lambda folder: nxtomo(
                folder / "a.nx",
                plain_frames(),
                **{"instrument/detector/x_pixel_size": (PIXEL / 100, "m"), "sample/x_pixel_size": (PIXEL / 1e3, "m")},
            ),
            "image",
            "pixel size at the sample",
        ),
    ]


def _turned(degrees: np.ndarray, unit: str = "deg", stored: np.ndarray | None = None) -> Make:
    counts, theta = counted(integrals(degrees)), degrees if stored is None else stored
    return lambda folder: dxchange(folder / "a.h5", counts, theta, angle_unit=unit)


def angles() -> list[Kind]:
    golden = np.arange(VIEWS) * 180 * (3 - 5**0.5)
    turns = np.arange(100) * 18.2
    three = np.arange(96) * 11.25
    turn = np.arange(VIEWS) * 360.0 / VIEWS
    slow = np.arange(VIEWS) * 0.2
    coarse = np.repeat(np.arange(0, 180, 7.5), 2)
    back = np.r_[DEGREES, 90.0, 0.0]
    moved = np.concatenate([COUNTS, np.roll(COUNTS[[24, 0]], 5, axis=1)])
    return [
        Kind("radians without a unit", _turned(DEGREES, "", np.deg2rad(DEGREES)), "image", "radians"),
        Kind("radians of a whole turn without a unit", _turned(turn, "", np.deg2rad(turn)), "image", "radians"),
        Kind(
            "radians to the last view at pi",
            _turned(np.linspace(0, 180, 48), "", np.linspace(0, np.pi, 48)),
            "image",
            "radians",
        ),
        Kind("radians backwards from pi", _turned(DEGREES[::-1], "", np.deg2rad(DEGREES[::-1])), "image", "radians"),
        Kind("radians with their unit", _turned(DEGREES, "radian", np.deg2rad(DEGREES)), "image"),
        Kind("degrees with another word", _turned(DEGREES, "°"), "image"),
        Kind("angles in an unknown unit", _turned(DEGREES, "steps"), "refused", "steps"),
        Kind("angles in milliradians", _turned(DEGREES, "mrad", 1e3 * np.deg2rad(DEGREES)), "image"),
        Kind("few degrees without a unit", _turned(slow, "", slow), "refused", "degrees or radians"),
        Kind(
            "radians that call themselves degrees",
            _turned(DEGREES, "deg", np.deg2rad(DEGREES)),
            "warned",
            "may have been radians",
        ),
        Kind("three turns of radians without a unit", _turned(three, "", np.deg2rad(three)), "refused", "degrees or radians"),
        Kind("golden angles without a unit, in radians", _turned(golden, "", np.deg2rad(golden)), "image", "radians"),
        Kind("golden angles", _turned(golden), "image", "turns"),
        Kind("five turns", _turned(turns), "image", "turns"),
        Kind(
            "five turns in radians", lambda f: array(f / "a.npz", integrals(turns), angles=np.deg2rad(turns)), "image", "turns"
        ),
        Kind(
            "angles for flats and darks too",
            lambda f: dxchange(f / "a.h5", theta=np.r_[np.zeros(5), DEGREES]),
            "refused",
            "53 angles",
        ),
        Kind(
            "one angle more than views", lambda f: dxchange(f / "a.h5", theta=np.linspace(0, 180, 49)), "refused", "49 angles"
        ),
        Kind("fewer angles than views", lambda f: dxchange(f / "a.h5", theta=DEGREES[:40]), "refused", "40 angles"),
        Kind("an angle that is NaN", lambda f: dxchange(f / "a.h5", theta=np.r_[DEGREES[:-1], np.nan]), "refused", "finite"),
        Kind("degrees under the name of radians", lambda f: array(f / "a.npz", LINES, angles=DEGREES), "refused", "degrees"),
        Kind(
            "few whole degrees under the name of radians",
            lambda f: array(f / "a.npz", LINES[:8], angles=np.arange(8.0)),
            "refused",
            "degrees",
        ),
        Kind("two views at each angle", _turned(coarse), "image", "24 of 48 views"),
        Kind("all views at one angle", _turned(np.zeros(VIEWS) + 5), "refused", "one angle"),
        Kind("returns at the end, the sample moved", lambda f: dxchange(f / "a.h5", moved, back), "image", "return"),
        Kind("alignment images", _alignment, "image", "alignment"),
        Kind("images marked as invalid", _invalid, "image", "invalid"),
    ]


def _alignment(folder: Path) -> Path:
    moved = np.roll(COUNTS[[0, 24, 47]], 5, axis=1)
    return nxtomo(folder / "a.nx", [*plain_frames(), (-1, DEGREES[[0, 24, 47]], moved)])


def _invalid(folder: Path) -> Path:
    return nxtomo(folder / "a.nx", [*plain_frames(), (3, np.array([11.0, 12.0]), flats(50, 2)[:, 0])])
