"""``ctuq calibrate``: read image, error bars and scan, size the error bars, tell, and write results and report."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq import files
from ctuq.app.calibration.options import Calibrate
from ctuq.app.facts import facts_of_result
from ctuq.app.folder import RESULTS
from ctuq.app.report.anew import image_report
from ctuq.app.report.summary import sentences
from ctuq.app.report.tables import scale_rows
from ctuq.app.terminal import give, say, warn
from ctuq.errors import InputError
from ctuq.files.formats.anyarray import read_array
from ctuq.tomo import Scan
from ctuq.tomo.geometry import VolumeGrid
from ctuq.uncertainty.calibration.foreign import calibrate
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.storage import write_tiff

_SCORES = {
    "rms_z": "rms z (1 is ideal)",
    "cover_68": "68 % intervals hold",
    "cover_95": "95 % intervals hold",
    "log_likelihood": "nats a ray",
}
_KINDS = ("samples", "covariance", "std")


def run_calibrate(command: Calibrate) -> int:
    """Calibrate into the folder that is held; the exit code."""
    kind = _kind(command)
    bars, doubts = _bars(kind, getattr(command, kind)), []
    scan = files.read(command.scan, geometry=command.geometry, entry=command.entry, follow_links=command.follow_links)
    held_out = views(command.held_out, scan.n_angles)
    image = _image(command.image, kind, bars)
    if kind == "samples":
        bars, doubts = _upright(bars, image.shape)
    _require_kind(kind, bars, image.shape)
    grid = _grid(command, scan, image.shape)
    result = calibrate(
        image,
        bars,
        scan,
        held_out,
        grid=grid,
        sigma2=command.sigma2,
        cautious=command.cautious,
        method=command.name or "another program",
        systematics=command.systematics,
    )
    result.save(command.output / RESULTS)
    write_tiff(result, command.output)
    report = image_report(result, command.output)
    give(folder=command.output, report=report, result=facts_of_result(result))
    _tell(result)
    warn((*doubts, *result.warnings))
    say(f"Report: {report}")
    return 0


def _tell(result: Result) -> None:
    """The two scales, and the scores of held-out rays before and after."""
    for sentence in sentences(result):
        say(sentence)
    for what, factor, interval in scale_rows(result):
        say(f"Factor on the {what}: {factor.removeprefix('× ')} (68 %: {interval})")
    if result.calibration is None:
        return
    for key, name in _SCORES.items():
        before, after = (float(scores[key]) for scores in (result.calibration.raw, result.calibration.calibrated))
        of_share = key.startswith("cover")
        shown = f"{100 * before:.0f} %, now {100 * after:.0f} %" if of_share else f"{before:.3g}, now {after:.3g}"
        say(f"Held-out rays, {name}: before {shown}")


def _kind(command: Calibrate) -> str:
    """In which of three ways the program says how sure it is."""
    kinds = [each for each in _KINDS if getattr(command, each) is not None]
    if len(kinds) != 1:
        told = ", ".join(f"--{each}" for each in kinds) or "none"
        raise InputError(f"Say how sure the program is by one of --samples, --covariance and --std; given: {told}.")
    return kinds[0]


def views(text: str, count: int) -> NDArray[np.int64]:
    """Indices of ``I,J,...``, each maybe ``A:B`` or ``A:B:STEP`` with ends left out.

    Raises
    ------
    InputError
        If it says no views, or some that the scan has not.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*|\s*(\d{0,9}):(\d{0,9})(?::(\d{1,9}))?\s*", part)
        if match is None or match[4] == "0":
            raise InputError(f"--held-out takes views counted from 0 such as 3,13,23 or 3::10, not {text!r}.")
        found += [int(match[1])] if match[1] else range(int(match[2] or 0), int(match[3] or count), int(match[4] or 1))
    if not found or max(found) >= count:
        most = f"{max(found)}, and the scan has 0 to {count - 1}" if found else "none"
        raise InputError(f"--held-out {text} names the views up to {most}; name views of the scan.")
    return np.unique(found).astype(np.int64)


def _bars(kind: str, text: str) -> Any:
    if kind == "std":
        try:
            return float(text)
        except ValueError:
            pass
    return read_array(text, {"samples": "samples", "covariance": "a covariance", "std": "a standard deviation"}[kind], kind)


def _image(text: str | None, kind: str, bars: Any) -> NDArray:
    """The image that is given, or the samples' mean."""
    if text is not None:
        return read_array(text, "an image", "image")
    if kind != "samples" or bars.ndim != 3:
        raise InputError(
            "Give the --image that the error bars are of; only samples (n, y, x) have one of their own, their mean."
        )
    return bars.mean(axis=0, dtype=np.float64)


def _upright(samples: NDArray, shape: tuple[int, ...]) -> tuple[NDArray, list[str]]:
    """Samples one a row; CUQIpy has them one a column."""
    pixels = int(np.prod(shape))
    if samples.ndim != 2 or len(samples) != pixels or samples.shape[1] == pixels:
        return samples, []
    return samples.T, [f"The samples of shape {samples.shape} are taken to be one a column, as CUQIpy has them."]


def _require_kind(kind: str, bars: Any, shape: tuple[int, ...]) -> None:
    """Refuse error bars that would be taken for those of another kind."""
    pixels, given = int(np.prod(shape)), np.shape(bars)
    fitting = {
        "samples": len(given) > 1 and given[1:] in (shape, (pixels,)),
        "covariance": given == (pixels, pixels),
        "std": given in ((), shape),
    }
    size = "(y, x) = " + str(tuple(shape))
    wanted = {"samples": "(n, y, x)", "covariance": f"({pixels}, {pixels})", "std": "(y, x), or one number"}
    if not fitting[kind]:
        raise InputError(f"--{kind} has the shape {given}, which does not fit the image of {size}; give {wanted[kind]}.")


def _grid(command: Calibrate, scan: Scan, shape: tuple[int, ...]) -> VolumeGrid | None:
    """Where the pixels lie, by what is typed; None for the scan's own grid."""
    centre = (0.0, 0.0)
    if command.centre is not None:
        numbers = re.fullmatch(r"\s*([^,]+),([^,]+)", command.centre)
        try:
            centre = (float(numbers[1]), float(numbers[2])) if numbers else (np.nan, np.nan)
        except ValueError:
            centre = (np.nan, np.nan)
        if not np.isfinite(centre).all() or command.pixel is None:
            raise InputError(f"--centre takes X,Y in mm beside --pixel, such as 0.5,-1, not {command.centre!r}.")
    if len(shape) != 2:
        raise InputError(f"The image has the shape {tuple(shape)}; give one slice (y, x).")
    if command.pixel is not None:
        if not (np.isfinite(command.pixel) and command.pixel > 0):
            raise InputError(f"--pixel is a positive number of mm, got {command.pixel:g}.")
        return VolumeGrid(shape, command.pixel, centre)
    if scan.grid is None or scan.grid.shape != tuple(shape):
        raise InputError(f"The scan does not say where the image's {shape[0]} x {shape[1]} pixels lie; give --pixel MM.")
    return None
