"""What cannot be right in the values of a scan is refused, and what may be wrong is told."""

import warnings

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.files.brightness import doubt_of_flats, doubts_of_brightness
from ctuq.files.formats.raw import Raw
from ctuq.tomo.moments import jump_of_centre, stray_of_centre
from ctuq.tomo.preprocess import Corrected, suspicion
from ctuq.tomo.scan import Scan
from ctuq.tomo.shadow import noise_of, only_air
from ctuq.tomo.turns import better_turn, sorted_as_text, to_and_fro

_LARGEST_INTEGRAL = 50.0
_SATURATED = 1e-3
_FAR_BELOW = 0.1
_DARK_EDGE = 0.3
_LOG_OF_COUNTS, _STEADY, _UPPER, _FAR_ABOVE = 3.0, 0.1, 0.6, 5.0
"""Logarithms of counts are above ln(20) in air, and the same there in all views: of 20000 counts behind ellipses the edges vary
by 0.01 of the range over the columns. Line integrals so large at both edges would let 5 % of the rays through."""
_DEAD_RUN, _FEWEST_DEAD = 0.05, 3
"""Share of the detector's columns that are dead side by side: defects take a few, half a detector all that lies there."""
_CUT_OFF, _PILED = 0.01, 8
"""Share of the rays at one end of the values, and how many times those at the value beside it, that were cut off. Of drawn
scans of which 39 and 9 % were, 95 % intervals held 59 and 94 % of the object's pixels."""
_VIEWS = 8
_SAID = (
    "The values are said to be {} but are {} at the detector's edges, as {} are: check 'values' in the geometry file, else air "
    "and object may change places."
)
_BITS = (8, 10, 12, 14, 16)


def doubts_of_values(raw: Raw) -> tuple[str, ...]:
    """Warnings about the values as they are stored: saturation, flats that differ.

    Raises
    ------
    InputError
        If values that nobody called line integrals cannot be such.
    """
    if raw.kind_of_values == "log":
        return _doubts_of_integrals(raw)
    _refuse_wrapped(raw)
    dark_edges = raw.kind_of_values == "transmission" and _darkest_at_the_edges(raw.values)
    if dark_edges and not raw.stated:
        raise InputError(
            "its values are taken as transmission but smallest at the detector's edges, as line integrals are; say 'values:' "
            "(transmission, counts or log) in a geometry file."
        )
    no_darks = "The file has no darks: the detector is taken to count 0 without beam; else give 'dark' in a geometry file."
    dark = no_darks if raw.kind_of_values == "counts" and raw.darks is None else ""
    swapped = _SAID.format("transmission", "smallest", "line integrals") if dark_edges else ""
    return tuple(text for text in (swapped, dark, _saturation(raw), _floor(raw), doubt_of_flats(raw)) if text)


def doubts_of_projections(raw: Raw, corrected: Corrected) -> tuple[str, ...]:
    """Warnings about the line integrals that were made of the values.

    Raises
    ------
    InputError
        If they are all alike or mostly negative, or the rays are far brighter than the open beam.
    """
    good = corrected.weights > 0
    values = corrected.projections[good]
    told = []
    if np.ptp(values) == 0 and not raw.one_of_many:
        if raw.kind_of_values == "log" and not values.any():
            raise InputError(f"all {values.size} line integrals are 0, so nothing was measured; check which data these are.")
        told.append(f"All {values.size} rays have the same value: air alone, or nothing was measured.")
    if raw.kind_of_values != "log":
        told += doubts_of_brightness(raw, corrected.projections, good)
    told += _dead_side_by_side(raw, good)
    if not raw.one_of_many:
        refuse_negative(values, raw.kind_of_values)
        if only_air(values):
            told.append("The projections show no shadow, only air: another detector row may see the object.")
    if corrected.suspects:
        told.append(suspicion(corrected.suspects))
    return tuple(told)


def refuse_negative(values: NDArray, kind_of_values: str) -> None:
    """Refuse line integrals that are mostly below 0.

    Raises
    ------
    InputError
    """
    low, high = np.percentile(values, [0.5, 99.5])
    if low < 0 and -low > 4 * max(high, 0):
        way = "'scale: -1' in a geometry file turns the sign" if kind_of_values == "log" else "check the flats"
        raise InputError(f"the line integrals run from {low:.3g} to {high:.3g}, but attenuation cannot be negative; {way}.")


def doubts_of_angles(scan: Scan) -> tuple[str, ...]:
    """Warnings where the projections are not those of one object at these angles, or are with others."""
    stray, other = stray_of_centre(scan), better_turn(scan)
    if other is not None:
        how, then, now = other
        return (
            f"The projections are explained better if the angles run {how} (misfit {100 * then:.2g} %, as they are told "
            f"{100 * now:.2g} %): check the angles, their step, the sense of rotation ('clockwise: true') and axis_column.",
        )
    if (as_text := sorted_as_text(scan)) is not None:
        return (
            "The projections are explained better if the views are sorted as text, 10 before 2 (misfit in the order of their "
            f"numbers {100 * as_text[0]:.2g} %, as they are {100 * as_text[1]:.2g} %): give the files names that sort by "
            "number, or each view its angle.",
        )
    told = ()
    if (mirrored := to_and_fro(scan)) is not None:
        told = (
            f"The projections are explained better if every second view is mirrored (misfit {100 * mirrored[0]:.2g} %, as they "
            f"are {100 * mirrored[1]:.2g} %): a scanner that goes to and fro saves its rows in turn from left and right.",
        )
    if stray is None:
        jump = jump_of_centre(scan)
        return told if jump is None else (*told, _jumps(scan, *jump))
    return (
        *told,
        f"The projections' centre of mass strays by {stray:.2g} columns (rms) from where one object's would be at these "
        "angles: check the angles, their unit and order, and whether the sample moved.",
    )


def _jumps(scan: Scan, columns: float, view: int) -> str:
    degrees = np.rad2deg(scan.geometry.angles[view])
    return (
        f"The projections' centre of mass jumps by {abs(columns):.2g} columns at view {view} ({degrees:.4g} degrees) from "
        "where one object's would be: check whether the sample moved, or the scan was interrupted there."
    )


def _doubts_of_integrals(raw: Raw) -> tuple[str, ...]:
    values = np.asarray(raw.values, np.float64)
    values = values[np.isfinite(values)]
    largest = float(np.percentile(values, 99))
    if not raw.stated and largest > _LARGEST_INTEGRAL:
        raise InputError(
            f"its values go up to {largest:.4g}, which line integrals do not; say 'values: counts' with 'flat: N', or "
            "'values: transmission', or 'values: log' with a 'scale', in a geometry file."
        )
    inverted = _brightest_at_the_edges(raw.values, values)
    if not raw.stated and inverted:
        raise InputError(
            "its values are largest at the detector's edges, as transmission and counts are but line integrals are not; say "
            "'values:' (transmission, counts or log) in a geometry file."
        )
    told = []
    if inverted:
        told.append(_SAID.format("line integrals", "largest", "transmission and counts"))
    elif _logs_of_counts(raw.values):
        told.append(
            "The line integrals are largest at both of the detector's edges, and the same there in all views, as logarithms of "
            "counts are: give the counts with their 'flat', or subtract the logarithms from that of the open beam."
        )
    told += [text for text in (_over_their_most(raw.values) or _cut_off(values, values.max(), "largest"),) if text]
    if largest > _LARGEST_INTEGRAL:
        told.append(f"Line integrals go up to {largest:.4g}, so attenuation is in arbitrary units; a 'scale' makes it 1/mm.")
    return tuple(told)


def _brightest_at_the_edges(rays: NDArray, finite: NDArray) -> bool:
    """Whether both edges are as bright as anything, and the rest is darker: by all rays, or by the medians of the columns.

    Of pictures in 8 bit whose air reads 22 with 5 % of noise a hundredth of all rays is brighter than the edges.
    """
    if rays.shape[1] < 8:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns that are NaN in every view
        columns = np.nanmedian(np.asarray(rays, np.float64), axis=0)
    edges = min(float(np.nanmedian(rays[:, :2])), float(np.nanmedian(rays[:, -2:])))
    low, high = np.percentile(finite, [1, 99])
    darkest, brightest = np.nanpercentile(columns, [1, 99])
    by_rays = edges > 0.9 * high and low < 0.8 * edges
    return bool(low >= 0 and (by_rays or (edges > 0.9 * brightest and darkest < 0.8 * edges)))


def _logs_of_counts(rays: NDArray) -> bool:
    """Whether both edges are among the largest columns, beside what a beam's profile varies, and alike in all views."""
    values = np.asarray(rays, np.float64)
    if values.shape[1] < 8 or len(values) < _VIEWS or not np.isfinite(values).all():
        return False
    columns, noise = np.median(values, axis=0), noise_of(values)
    darkest, brightest = np.percentile(columns, [1, 99])
    width, edges = brightest - darkest, values[:, [0, 1, -2, -1]]
    steady = edges.std(axis=0).max() < max(_STEADY * width, 2 * noise)
    tall = np.median(edges, axis=0).min() > max(_LOG_OF_COUNTS, darkest + _UPPER * width)
    return bool(steady and tall and width > _FAR_ABOVE * noise)


def _darkest_at_the_edges(rays: NDArray) -> bool:
    """Whether both edges are far below most of what is between them: no object lets more through than the air beside it."""
    if rays.shape[1] < 8 or not np.isfinite(rays).any():
        return False
    values = np.asarray(rays, np.float64)
    edges = [float(np.nanmedian(values[:, :2])), float(np.nanmedian(values[:, -2:]))]
    return max(edges) < _DARK_EDGE * float(np.nanmedian(values[:, values.shape[1] // 4 : -(values.shape[1] // 4)]))


def _dead_side_by_side(raw: Raw, good: NDArray[np.bool_]) -> list[str]:
    """A warning where more columns side by side count in no view than defects take, and nobody said so."""
    dead, n = ~good.any(axis=0), good.shape[1]
    for known in (raw.bad_columns, None if raw.weights is None else ~(raw.weights > 0).any(axis=0)):
        dead &= True if known is None else ~known
    ends = np.flatnonzero(np.diff(np.r_[False, dead, False].astype(int))).reshape(-1, 2)
    runs = [f"{first} to {last - 1}" for first, last in ends if last - first >= max(_FEWEST_DEAD, _DEAD_RUN * n)]
    if not runs:
        return []
    return [
        f"Columns {' and '.join(runs)} of {n} count in no view: the detector is dead or cut off there, and what no other "
        "column sees is missing in the image; say 'bad_columns' in a geometry file if you know of it."
    ]


def _refuse_wrapped(raw: Raw) -> None:
    """Refuse counts far below 0, as unsigned numbers are that were read as signed ones."""
    values = np.asarray(raw.values, np.float64)
    low = float(np.nanpercentile(values, 1)) if np.isfinite(values).any() else 0.0
    if low < 0 and -low > _FAR_BELOW * float(np.nanmax(np.abs(values))):
        raise InputError(
            f"its {raw.kind_of_values} go down to {low:.4g}, far below 0: unsigned numbers may have been saved as signed "
            "ones, or these are line integrals ('values: log'); save them anew, or say what they are in a geometry file."
        )


def full_scale(raw: Raw) -> float | None:
    """The detector's largest count, where some rays stand at it: all ones in so many bits, also moved to the top of 16."""
    values = np.asarray(raw.values)
    top = float(np.nanmax(values))
    full = {2.0**bits - 1 for bits in (*_BITS, 32)} | {(2.0**bits - 1) * 2.0 ** (16 - bits) for bits in _BITS}
    return top if top in full and np.mean(values == top) >= _SATURATED else None


def _saturation(raw: Raw) -> str:
    top = full_scale(raw)
    if top is None:
        return ""
    share = 100 * float(np.mean(np.asarray(raw.values) == top))
    stand = f"{share:.2g} % of the projections stand at {top:g}, the largest value of the detector: "
    if raw.flats is not None and np.mean(np.asarray(raw.flats) >= top) >= _SATURATED:
        return (
            f"The flats and {stand}unless they were scaled so that the open beam is white, it was brighter than the detector "
            "can tell, and attenuation is too low everywhere."
        )
    return f"{stand}such a ray tells a bound alone; it is taken at half of it, and hardly counts in the fit."


def _floor(raw: Raw) -> str:
    """Of counts and transmission that go no lower than a value above 0; what counts 0 is told as missing."""
    values = np.asarray(raw.values)
    values = values[np.isfinite(values)]
    return _cut_off(values, values.min(), "smallest") if values.size and values.min() > 0 else ""


def _over_their_most(rays: NDArray) -> str:
    """A warning where all views have the same largest value, each at a ray or two."""
    if len(rays) < _VIEWS or not np.isfinite(rays).all():
        return ""
    top = float(rays.max())
    at = (rays == top).sum(axis=1)
    if top <= 0 or at.min() == 0 or np.median(at) > 2:
        return ""
    return (
        f"All views have the same largest value, {top:.4g}: each seems to be divided by its own, so that these are no line "
        "integrals, and no object explains them; give the values as they were before."
    )


def _cut_off(values: NDArray, limit: float, name: str) -> str:
    """A warning where many rays stand at one end of the values, and next to none at the value before it."""
    share = np.count_nonzero(values == limit) / values.size
    if share < _CUT_OFF:  # of each row of a volume; to sort two million values takes 0.15 s, this 0.002
        return ""
    levels, counts = np.unique(values, return_counts=True)
    if len(levels) < 8:
        return ""
    at, before = counts[[-1, -2]] if limit == levels[-1] else counts[:2]
    if at < _PILED * before:
        return ""
    return (
        f"{100 * share:.2g} % of the rays stand at {limit:.4g}, the {name} value: they seem to be cut off there, so that what "
        "is dense is too light in the image, and its error bars do not know of it."
    )
