"""A known object, its counts, and files of them as other programs write them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray

VIEWS, COLUMNS, PIXEL = 48, 64, 0.3
BEAM, DARK, AXIS = 20000.0, 100.0, 31.5
DEGREES = np.arange(VIEWS) * 180.0 / VIEWS
DISCS = ((0.05, 0, 0, 8), (0.06, 3, 3.5, 1.5), (-0.05, -4, 1, 1), (0.1, 1.5, -4.5, 1.2), (0.05, -3, -3.5, 0.8))
Discs = Sequence[tuple[float, float, float, float]]


def integrals(degrees: NDArray = DEGREES, axis: float = AXIS, columns: int = COLUMNS, discs: Discs = DISCS) -> NDArray:
    """Line integrals (angle, column) of discs: (1/mm, x, y, radius in mm)."""
    across = (np.arange(columns) - axis) * PIXEL
    turned = np.deg2rad(np.asarray(degrees, float))[:, None]
    chords = [
        2 * mu * np.sqrt(np.maximum(0, r**2 - (across - x * np.cos(turned) - y * np.sin(turned)) ** 2)) for mu, x, y, r in discs
    ]
    return np.sum(chords, axis=0)


def counted(lines: NDArray, beam: float | NDArray = BEAM, seed: int = 0) -> NDArray:
    """Counts of line integrals, with photon noise and the dark level."""
    return np.random.default_rng(seed).poisson(beam * np.exp(-lines)) + DARK


LINES = integrals()
COUNTS = counted(LINES)


def flats(level: float = BEAM, frames: int = 3) -> NDArray:
    """Open-beam frames (frame, row, column) of one row."""
    return np.full((frames, 1, COLUMNS), level + DARK)


def dxchange(path: Path, counts: NDArray | None = None, theta: Any = DEGREES, **nodes: Any) -> Path:
    """A DXchange file of one detector row, and a geometry file that tells the axis (unless ``axis`` is None).

    ``nodes`` are further paths (None to leave one out), "unit" of the pixel and "angle_unit".
    """
    told: dict[str, Any] = {
        "exchange/data": counted(integrals()) if counts is None else counts,
        "exchange/data_white": flats(),
        "exchange/data_dark": flats(0, 2),
        "exchange/theta": theta,
        "measurement/instrument/detector/actual_pixel_size_x": PIXEL,
    } | {name: value for name, value in nodes.items() if "/" in name}
    with h5py.File(path, "w") as file:
        for name, value in told.items():
            if value is not None:
                values = np.asarray(value)
                file[name] = values[:, None] if name == "exchange/data" and values.ndim == 2 else values
        if "exchange/theta" in file and nodes.get("angle_unit", "deg"):
            file["exchange/theta"].attrs["units"] = nodes.get("angle_unit", "deg")
        pixel = "measurement/instrument/detector/actual_pixel_size_x"
        if pixel in file and nodes.get("unit", "mm"):
            file[pixel].attrs["units"] = nodes.get("unit", "mm")
    return told_axis(path, nodes.get("axis", AXIS))


def nxtomo(path: Path, frames: Sequence[tuple[int, NDArray, NDArray]], **nodes: Any) -> Path:
    """An NXtomo file of (image key, degrees, counts) in the order of the scan; ``nodes`` are paths with (value, unit)."""
    keys = np.concatenate([np.full(len(part), key) for key, _, part in frames])
    angles = np.concatenate([np.broadcast_to(at, len(part)) for _, at, part in frames]).astype(float)
    told = {"instrument/detector/x_pixel_size": (PIXEL / 1e3, "m")} | nodes
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry["definition"] = "NXtomo"
        entry["instrument/detector/data"] = np.concatenate([part for _, _, part in frames])[:, None]
        entry["instrument/detector/image_key"] = np.where(keys < 0, 0, keys)
        entry["instrument/detector/image_key_control"] = keys
        entry["sample/rotation_angle"] = angles
        entry["sample/rotation_angle"].attrs["units"] = "degree"
        for name, (value, unit) in told.items():
            entry[name] = value
            entry[name].attrs["units"] = unit
    return told_axis(path, AXIS)


def told_axis(path: Path, axis: float | None) -> Path:
    """The file, with a geometry file beside it that tells its axis."""
    if axis is not None:
        path.with_suffix(".yaml").write_text(f"axis_column: {axis}\n")
    return path


def plain_frames(counts: NDArray | None = None) -> list[tuple[int, NDArray, NDArray]]:
    """Darks, flats and views of an NXtomo scan."""
    views = counted(integrals()) if counts is None else counts
    return [(2, np.zeros(1), flats(0, 2)[:, 0]), (1, np.zeros(1), flats()[:, 0]), (0, DEGREES, views)]


def picture(path: Path, values: NDArray, text: str = "", **others: Any) -> Path:
    """A TIFF, with its geometry file beside it where there is a text."""
    settings: dict[str, Any] = {"photometric": "minisblack"} | others
    tifffile.imwrite(path, values, **settings)
    if text:
        path.with_suffix(".yaml").write_text(text)
    return path


def array(path: Path, rays: NDArray, text: str = "", **others: Any) -> Path:
    """An .npz with its geometry, and a geometry file beside it where there is a text."""
    told = {"sinogram": rays, "kind": "parallel", "pixel": PIXEL}
    if "angles" not in others:
        told["angles_deg"] = DEGREES
    np.savez(path, **(told | others))
    if text:
        path.with_suffix(".yaml").write_text(text)
    return path


def geometry(*lines: str, values: str = "counts", views: int = VIEWS) -> str:
    """A geometry file of the scanner, with more lines or others."""
    first = ("kind: parallel", f"pixel: {PIXEL}", f"angles: {{first: 0, step: {180 / views:g}, count: {views}}}")
    keys = [line.split(":")[0] for line in lines]
    levels = (f"flat: {BEAM + DARK:g}", f"dark: {DARK:g}") if values == "counts" else ()
    told = [line for line in (*first, f"values: {values}", *levels) if line.split(":")[0] not in keys]
    return "\n".join([*told, *lines]) + "\n"


Make = Callable[[Path], "Path | list[Path]"]
