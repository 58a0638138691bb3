"""What a result says, in the words of someone who measures with X-rays."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctuq.app.report.figures import method_name
from ctuq.app.report.systematics import errors_told
from ctuq.tomo.geometry import FanBeam
from ctuq.uncertainty.results.contents import Calibration
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.volume import VolumeResult

_FAIR_RMS_Z = (0.85, 1.18)
_BY_SAMPLES = ("bootstrap", "noise", "ensemble", "dropout", "sgld", "diagonal")
"""Error bars by images that differ; a test holds them beside `ctuq.pipeline.image.spreads.SPREADS`."""


def scan_name(result: Result) -> str:
    """What the scan is called: its file's name, without the folders it lies in."""
    return ", ".join(Path(part.strip()).name or part for part in result.scan.provenance.source.split(","))


def _what_was_done(result: Result) -> str:
    """One sentence: views, beam, grid and method."""
    geometry, grid = result.scan.geometry, result.grid
    beam = "fan beam" if isinstance(geometry, FanBeam) else "parallel beam"
    pixels = " × ".join(str(n) for n in reversed(grid.shape))
    views = len(geometry.angles)
    return (
        f"{views} {'view' if views == 1 else 'views'} of {geometry.columns} rays ({beam}) of {scan_name(result)} were "
        f"reconstructed on {pixels} pixels of {grid.voxel:.3g} mm by {method_name(result.method)}."
    )


def how_sure(result: Result) -> str:
    """One sentence: the standard deviation inside the object, absolute and relative to its attenuation."""
    if result.std is None:
        return "No uncertainty was computed for this reconstruction."
    return spread_told(result.mean, result.std, "pixel")


def _how_exact(result: Result) -> str:
    """One sentence: how far the standard deviations may be off those that would be worked out in full; none where they are."""
    if result.std is None or not result.std_error > 0:
        return ""
    if result.settings.get("error_bars") == "samples" or result.settings.get("uncertainty") in _BY_SAMPLES:
        count = round(1 + 0.5 / result.std_error**2)
        return f"{count} samples know each standard deviation to {100 * result.std_error:.2g} %."
    return f"They are themselves right to some {100 * result.std_error:.2g} % (rms), as not all of them is worked out exactly."


def spread_told(mean: NDArray, std: NDArray, what: str) -> str:
    """The standard deviation inside the object of pixels or voxels."""
    inside = mean > 0.5 * np.percentile(mean, 99)
    if not inside.any():
        return f"The median standard deviation of a {what} is {np.median(std):.2g} 1/mm."
    typical, level = (float(np.median(values[inside])) for values in (std, mean))
    low, high = np.percentile(std[inside], [5, 95])
    return (
        f"Inside the object a {what} is typically known to ± {typical:.2g} 1/mm, {_per_cent(typical / level)} % of its "
        f"attenuation of {level:.3g} 1/mm (one standard deviation; 90 % of these {what}s have between {low:.2g} and "
        f"{high:.2g})."
    )


def _per_cent(share: float) -> str:
    return f"{100 * share:.2g}" if share < 0.995 else f"{100 * share:.0f}"


def how_trustworthy(result: Result | VolumeResult) -> str:
    """One to three sentences: what the held-out views say about the intervals."""
    if result.std is None:
        return ""
    if result.calibration is None:
        return "No view was held out, so these figures are the model's own and nothing has checked them."
    before, after = (_rms_z(result.calibration, raw) for raw in (True, False))
    views = len(result.calibration.views)
    return (
        f"On {views} held-out view{'s' * (views != 1)} that the fit never saw, the rays missed their prediction by "
        f"{after:.2f} predicted standard deviations (rms; 1 is ideal): the uncertainty {_verdict(after)}. "
        f"Before calibration it was {before:.2f}.{_left_open(result.calibration)}"
    )


def _left_open(calibration: Calibration) -> str:
    """One sentence: what the intervals may cover, as so few views size them."""
    if not np.isfinite(calibration.cover_95).all():
        return ""
    (low, high), (least, most) = calibration.cover_95, calibration.cover_68
    views = len(calibration.views)
    return (
        f" As {'this view sizes' if views == 1 else f'these {views} views size'} them, the 95 % intervals of unseen rays cover "
        f"between {100 * low:.0f} and {100 * high:.0f} %, the 68 % intervals between {100 * least:.0f} and {100 * most:.0f} % "
        "(with a probability of 90 %)."
    )


def sentences(result: Result) -> list[str]:
    """The summary at the head of a report."""
    told = (_what_was_done(result), how_sure(result), _how_exact(result), how_trustworthy(result), *errors_told(result))
    return [text for text in told if text]


def _rms_z(calibration: Calibration, raw: bool) -> float:
    measured, predicted, *spreads = calibration.predictions
    return float(np.sqrt(np.mean(((measured - predicted) / spreads[0 if raw else 1]) ** 2)))


def _verdict(rms_z: float) -> str:
    if rms_z > _FAIR_RMS_Z[1]:
        return "is still too small, the intervals are over-confident"
    if rms_z < _FAIR_RMS_Z[0]:
        return "is larger than needed, the intervals are cautious"
    return "has the right size there"
