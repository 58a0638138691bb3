"""The report of a volume: three slices through its middle, what it was made from, and what to know of it."""

from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ctuq.app.png import png_bytes
from ctuq.app.report.figures import UNIT
from ctuq.app.report.page import filled
from ctuq.app.report.space import geometry_lines
from ctuq.errors import InputError
from ctuq.records import write_whole
from ctuq.uncertainty.volume_result import VolumeResult

_NAMES = {"fdk": "FDK", "sirt": "SIRT", "cgls": "CGLS", "tv": "TV", "dip": "deep image prior"}
_CAPTION = (
    "Slices through the volume's middle: across the rotation axis (z), seen along y, and seen along x. Positions in mm, the "
    "rotation axis at x = y = 0; lines show where the other two slices lie."
)


def _draw_slices(result: VolumeResult) -> Figure:
    """Three slices at right angles through the middle, in one grey window: the central 99 % of the volume."""
    volume, grid = result.mean, result.grid
    depth, height, width = (n // 2 for n in grid.shape)
    x, y, z = (
        (centre - n * grid.voxel / 2, centre + n * grid.voxel / 2)
        for centre, n in zip(grid.centre, grid.shape[::-1], strict=True)
    )
    shown = np.concatenate([part[np.isfinite(part)] for part in (volume[depth], volume[:, height], volume[:, :, width])])
    low, high = np.percentile(shown, [0.5, 99.5]) if shown.size else (0.0, 1.0)
    window = Normalize(low, high if high > low else low + 1)
    at = {
        "x": x[0] + (width + 0.5) * grid.voxel,
        "y": y[1] - (height + 0.5) * grid.voxel,
        "z": z[0] + (depth + 0.5) * grid.voxel,
    }
    # Rows of a picture from above: y falls with its index, z rises with it.
    slices = (
        (volume[depth], (*x, *y), "x", "y", "upper", "z"),
        (volume[:, height], (*x, *z), "x", "z", "lower", "y"),
        (volume[:, :, width], (*y[::-1], *z), "y", "z", "lower", "x"),
    )
    figure = Figure(figsize=(12.5, 4.4), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, (values, extent, across, up, origin, fixed) in zip(panels, slices, strict=True):
        axes.imshow(values, cmap="gray", norm=window, extent=extent, origin=origin, interpolation="nearest")
        axes.axvline(at[across], color="#c2410c", lw=0.6, alpha=0.7)
        axes.axhline(at[up], color="#c2410c", lw=0.6, alpha=0.7)
        axes.set(xlabel=f"{across} (mm)", ylabel=f"{up} (mm)", title=f"{fixed} = {at[fixed]:.3g} mm")
    figure.colorbar(ScalarMappable(window, "gray"), ax=list(panels), label=UNIT, extend="both", shrink=0.85)
    return figure


def slice_pictures(result: VolumeResult, folder: Path) -> bytes:
    """Draw the slices, and write them to ``slices.png`` in a folder, which is made if needed.

    Raises
    ------
    InputError, ResourceError
        If the folder cannot be written to.
    """
    data = png_bytes(_draw_slices(result))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write into {folder} ({error.strerror}); choose another output folder.") from error
    write_whole(folder / "slices.png", lambda target: target.write(data))
    return data


def write_volume_report(result: VolumeResult, path: Path, picture: bytes) -> Path:
    """Write the page; it appears under its name only when it is complete.

    Raises
    ------
    InputError, ResourceError
        If it cannot be written.
    """
    page = filled(
        "volume.html.jinja",
        pictures=[(picture, _CAPTION)],
        result=result,
        name=Path(result.provenance.source).name or result.provenance.source,
        sentences=sentences(result),
        tables=_tables(result),
    ).encode("utf-8")
    write_whole(path, lambda target: target.write(page))
    return path


def sentences(result: VolumeResult) -> list[str]:
    """What came out, in words."""
    depth, height, width = result.grid.shape
    method = _NAMES.get(result.method, result.method)
    told = [
        f"A volume of {width} x {height} x {depth} voxels of {result.grid.voxel:.4g} mm by {method} from "
        f"{result.geometry.n_angles} views. Error bars of volumes are not there yet."
    ]
    if result.held_out_misfit is not None:
        held = 0 if result.held_views is None else len(result.held_views)
        seen = f"{held} views" if held else "Single rays"
        told.append(
            f"{seen} were held out of the fit and stopped it: it misses their rays by {result.held_out_misfit**0.5:.3g} (rms, "
            f"no unit), those of the fitted views by {float(result.history['loss'].min()) ** 0.5:.3g}."
        )
    if result.scores:
        told.append(f"Against the known truth: {result.scores['psnr']:.1f} dB, rms error {result.scores['rmse']:.3g} 1/mm.")
    return told


def _tables(result: VolumeResult) -> list[tuple[str, list[tuple[str, str]]]]:
    told = result.provenance
    return [
        ("Geometry", geometry_lines(result.geometry)),
        ("Scan", [("file", told.source), ("SHA-256", told.sha256 or "none"), *told.facts.items()]),
        ("History", [(str(n + 1), step) for n, step in enumerate(told.steps)]),
        ("Settings", [(key, str(value)) for key, value in result.settings.items()]),
        ("Seconds", [(key, f"{value:.1f}") for key, value in result.timings.items()]),
        ("Versions", list(result.versions.items())),
    ]
