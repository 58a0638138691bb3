"""The report of a volume: three slices through its middle, what it was made from, and what to know of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ctuq.app.png import drawn
from ctuq.app.report.figures import UNIT
from ctuq.app.report.page import page_of
from ctuq.app.report.space import geometry_lines
from ctuq.app.report.summary import how_trustworthy, spread_told
from ctuq.app.report.tables import MEASURED_HEAD, measured_rows
from ctuq.app.report.volume_viewer import volume_data
from ctuq.errors import InputError
from ctuq.quantities import Quantity
from ctuq.records import write_whole
from ctuq.uncertainty.results.volume import VolumeResult, slices_of

_NAMES = {"fdk": "FDK", "sirt": "SIRT", "cgls": "CGLS", "tv": "TV", "dip": "deep image prior"}
_ROWS = {"mean": "mean", "std": "standard deviation"}
_CAPTION = (
    "Slices through the volume's middle: across the rotation axis (z), seen along y, and seen along x. Positions in mm, the "
    "rotation axis at x = y = 0; lines show where the other two slices lie."
)


def _draw_slices(result: VolumeResult) -> Figure:
    """Three slices at right angles through the middle: the mean, and below it the standard deviation where there is one."""
    rows = list(result.images.keys() & {"mean", "std"})
    rows.sort()
    figure = Figure(figsize=(12.5, 4.4 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 3, squeeze=False)
    for name, axes in zip(rows, panels, strict=True):
        _draw_row(figure, list(axes), result, name)
    return figure


def _draw_row(figure: Figure, panels: list[Axes], result: VolumeResult, name: str) -> None:
    """In one window: the central 99 % of what the three slices show, of a standard deviation from 0."""
    volume, grid, (rise, pitch, _) = result.images[name], result.grid, result.pitches
    box = (result.roi if name == "std" else None) or tuple((0, n) for n in grid.shape)
    depth, height, width = ((first + last) // 2 for first, last in box)
    x, y, z = (
        (centre - n * step / 2, centre + n * step / 2)
        for centre, n, step in zip(grid.centre, grid.shape[::-1], (pitch, pitch, rise), strict=True)
    )
    at = {"x": x[0] + (width + 0.5) * pitch, "y": y[1] - (height + 0.5) * pitch, "z": z[0] + (depth + 0.5) * rise}
    # Rows of a picture from above: y falls with its index, z rises with it.
    slices: tuple[tuple[NDArray, tuple[float, float, float, float], str, str, Literal["upper", "lower"], str], ...] = (
        (np.asarray(volume[depth]), (*x, *y), "x", "y", "upper", "z"),
        (np.asarray(volume[:, height]), (*x, *z), "x", "z", "lower", "y"),
        (np.asarray(volume[:, :, width]), (y[1], y[0], *z), "y", "z", "lower", "x"),
    )
    shown = np.concatenate([values[np.isfinite(values)] for values, *_ in slices])
    low, high = np.percentile(shown, [0.5, 99.5]) if shown.size else (0.0, 1.0)
    low, colours = (0.0, "inferno") if name == "std" else (low, "gray")
    window = Normalize(low, high if high > low else low + 1)
    for axes, (values, extent, across, up, origin, fixed) in zip(panels, slices, strict=True):
        axes.imshow(values, cmap=colours, norm=window, extent=extent, origin=origin, interpolation="nearest")
        axes.axvline(at[across], color="#c2410c", lw=0.6, alpha=0.7)
        axes.axhline(at[up], color="#c2410c", lw=0.6, alpha=0.7)
        axes.set(xlabel=f"{across} (mm)", ylabel=f"{up} (mm)", title=f"{_ROWS[name]}, {fixed} = {at[fixed]:.3g} mm")
    figure.colorbar(ScalarMappable(window, colours), ax=panels, label=UNIT, extend="both", shrink=0.85)


def slice_pictures(result: VolumeResult, folder: Path) -> bytes:
    """Draw the slices, and write them to ``slices.png`` in a folder, which is made if needed.

    Raises
    ------
    InputError, ResourceError
        If the folder cannot be written to.
    """
    data = drawn(_draw_slices, result)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write into {folder} ({error.strerror}); choose another output folder.") from error
    write_whole(folder / "slices.png", lambda target: target.write(data))
    return data


def write_volume_report(result: VolumeResult, path: Path, picture: bytes, measured: Sequence[Quantity] = ()) -> Path:
    """Write the page, with a table of what was measured; it appears under its name only when it is complete.

    Raises
    ------
    InputError, ResourceError
        If it cannot be written.
    """
    page = page_of(
        "volume.html.jinja",
        pictures=[(picture, _CAPTION)],
        script="volume.js",
        viewer=volume_data(result),
        result=result,
        name=Path(result.provenance.source).name or result.provenance.source,
        sentences=sentences(result),
        tables=_tables(result),
        measured=measured_rows(measured),
        measured_head=MEASURED_HEAD,
    ).encode("utf-8")
    write_whole(path, lambda target: target.write(page))
    return path


def sentences(result: VolumeResult) -> list[str]:
    """What came out, in words."""
    depth, height, width = result.grid.shape
    method = _NAMES.get(result.method, result.method)
    rise, pitch, _ = result.pitches
    size = f"{pitch:.4g} mm" if rise == pitch else f"{pitch:.4g} mm, {rise:.4g} mm from slice to slice,"
    views = f"{result.geometry.n_angles} view{'s' * (result.geometry.n_angles != 1)}"
    missing = "" if result.std is not None else " It has no error bars."
    told = [f"A volume of {width} x {height} x {depth} voxels of {size} by {method} from {views}.{missing}"]
    told += _of_stack(result) + (_bars_told(result) if result.trust else [])
    if result.held_out_misfit is not None:
        held = 0 if result.held_views is None else len(result.held_views)
        seen = ("Single rays were", "1 view was", f"{held} views were")[min(held, 2)]
        fitted = float(result.history["loss"][result.history["held_out_loss"].argmin()])
        told.append(
            f"{seen} held out of the fit and stopped it: it misses unseen rays by {result.held_out_misfit**0.5:.3g} (rms, no "
            f"unit), those of the fitted views by {fitted**0.5:.3g}."
        )
    if "psnr" in result.scores:
        told.append(f"Against the known truth: {result.scores['psnr']:.1f} dB, rms error {result.scores['rmse']:.3g} 1/mm.")
    if "truth_rms_z" in result.scores:
        told.append(
            f"That error has an rms z of {result.scores['truth_rms_z']:.2f} (1 is right), and the 95 % intervals hold "
            f"{100 * result.scores['truth_cover_95']:.0f} % of the true values."
        )
    return told


def _of_stack(result: VolumeResult) -> list[str]:
    """How many slices came out, and how their error bars did on views that were not fitted."""
    if "failed" not in result.slices:
        return []
    failed, count = int(result.slices["failed"].sum()), result.grid.shape[0]
    which = "Its one slice" if count == 1 else f"Each of its {count} slices"
    told = [f"{which} was made by itself" + (f", and {failed} could not be." if failed else ".")]
    if "held_out_rms_z" in result.scores:
        z = [result.scores[f"held_out_rms_z{end}"] for end in ("", "_min", "_max")]
        told.append(
            "A few slices taught the error bars of the others, whose held-out views they predict with an rms z of "
            f"{z[0]:.2f} ({z[1]:.2f} to {z[2]:.2f} in single slices); 1 is right."
        )
    return told


def _bars_told(result: VolumeResult) -> list[str]:
    """On the error bars of one volume: of which voxels, how long they are, and what checks them."""
    if result.std is None:
        return []
    part = slices_of(result.roi)
    told = [spread_told(result.mean[part], result.std[part], "voxel"), how_trustworthy(result)]
    if result.roi is not None:
        box = ",".join(f"{first}:{last}" for first, last in result.roi)
        told.insert(0, f"Only the voxels {box} (z, y, x) have error bars and samples.")
    return told


def _bars_tables(result: VolumeResult) -> list[tuple[str, list[tuple[str, str]]]]:
    if not result.trust:
        return []
    scores = [(f"{name}: {key}", f"{value:.4g}") for name, found in result.trust.items() for key, value in found.items()]
    model = [*((name, f"{value:.4g}") for name, value in result.prior.items()), ("noise variance", f"{result.sigma2:.4g}")]
    way = [(key, str(value)) for key, value in result.plan.items()]
    return [("Trust", scores), ("Linear model", [*model, ("log evidence", f"{result.log_evidence:.1f}")]), ("Way", way)]


def _tables(result: VolumeResult) -> list[tuple[str, list[tuple[str, str]]]]:
    told = result.provenance
    return [
        ("Geometry", geometry_lines(result.geometry)),
        ("Scan", [("file", told.source), ("SHA-256", told.sha256 or "none"), *told.facts.items()]),
        ("History", [(str(n + 1), step) for n, step in enumerate(told.steps)]),
        *_bars_tables(result),
        ("Settings", [(key, str(value)) for key, value in result.settings.items()]),
        *([("Slices", _slice_lines(result))] if result.slices else []),
        ("Seconds", [(key, f"{value:.1f}") for key, value in result.timings.items()]),
        ("Versions", list(result.versions.items())),
    ]


def _slice_lines(result: VolumeResult) -> list[tuple[str, str]]:
    """Range and mean of what the slices' own jobs told."""
    lines = []
    for name, column in result.slices.items():
        if name == "number":
            lines.append(("numbers in the scan", f"{column[0]:.0f} to {column[-1]:.0f}"))
            continue
        known = column[np.isfinite(column)]
        if known.size:
            lines.append((name, f"{known.mean():.4g} ({known.min():.4g} to {known.max():.4g})"))
    return lines
