"""Which part of the plane an image shows, and what of the object lies outside of it."""

from dataclasses import dataclass, replace

import numpy as np

from ctuq.errors import GeometryError, InputError
from ctuq.tomo.coverage import detector_columns
from ctuq.tomo.geometry import FanBeam, Geometry, VolumeGrid, full_turn
from ctuq.tomo.scan import Scan
from ctuq.tomo.shadow import Shadow, edge_columns

FIELDS = ("all", "common")
_RIM = 1.0
"""Columns of air that are left around an object."""
_WIDEST, _NARROWEST, _USUAL = 2.0, 1.25, 1.5
_TWO = 1e-6
"""Of the farthest column's, how much squares of distances differ at least for a line through them: two columns have one."""
_DARK_AIR = 0.02
"""Below 0, of the most that rays read: the air of the shipped scans lies between 0.3 % below and 2.6 % above it."""
# So many columns beside a grid's shadow the rays must be, and so many of them, or such a share, see more than air.
_BESIDE, _RAYS, _SHARE = 2.0, 3, 1e-3
# Beside an object all views read the same within such a share of it, in the outer sixteenths of the columns or so many of them.
_ALIKE, _FLAT_ENDS = 0.2, 3
# Under a faint object the same by the contrast: of a scan whose air read 0.59 of 0.78 at most, by a hundredth of it.
_EVEN = 0.1
# In such a share of views what drifts reads less than so much of its mean.
_SOME, _FAINT = 0.1, 0.25
# The corners of a square that wide stay on this side of the source.
_BEFORE_SOURCE = 0.69


@dataclass(frozen=True)
class Outline:
    """How far the object reaches from the axis, as its shadow tells.

    Parameters
    ----------
    reach : float
        Radius about the axis in mm, of the object's shadow where it is seen whole, else as it goes on beyond the detector.
    cut : tuple of str
        At which columns the shadow is cut off, so that part of the object was never measured; empty if it was seen whole.
    level, top : float
        Mean line integral there, and the largest.
    edges : float
        Mean line integral at that edge of the detector where it is larger.
    beyond : tuple of float and int
        Mean line integral of the views that are cut off, and how many these are.
    """

    reach: float
    cut: tuple[str, ...]
    level: float
    top: float
    edges: float
    beyond: tuple[float, int] = (0.0, 0)


def outline_of(scan: Scan) -> Outline:
    """The object's outline.

    In a full turn the shadow may be cut off at the side of the detector that is nearer to the axis (half acquisition): the
    other side sees the same half a turn later.
    """
    geometry, shadow = scan.geometry, scan.shadow
    left, right = shadow.cut
    near, far = np.sort(np.abs(geometry.axis_distances(np.array([-0.5, geometry.columns - 0.5]))))
    turned = full_turn(geometry.angles) and far - near > 2 * geometry.pixel_at_axis
    longer = _longer_side(geometry)
    sides = [side for side, is_cut in enumerate((left, right)) if is_cut and not (turned and side != longer)]
    if not sides:
        ends = np.array([shadow.first - _RIM - 0.5, shadow.last + _RIM + 0.5])
        if turned and (left or right):
            ends = ends[[longer]]
        reach = min(float(np.abs(geometry.axis_distances(ends)).max()), far)
        return Outline(reach, (), 0.0, shadow.top, max(shadow.levels))
    names = tuple(("first", "last")[side] for side in sides)
    level = max(shadow.levels[side] for side in sides)
    beyond = max((shadow.beyond[side], int((~shadow.air[:, side]).sum())) for side in sides)
    return Outline(far * _goes_on(scan, shadow), names, level, shadow.top, max(shadow.levels), beyond)


def choose_grid(scan: Scan, size: int, field: float | str | None = None) -> VolumeGrid:
    """The grid of an image of ``size`` pixels along x.

    Parameters
    ----------
    scan : Scan
    size : int
    field : float, "all" or "common", optional
        Width in mm; or that of all rays; or of the circle about the axis that every view sees. By default the scan's own grid,
        and where it has none, that circle, or as much more as the object's shadow reaches beyond it.

    Raises
    ------
    GeometryError
        If the detector has one column, or no such field exists.
    """
    geometry = scan.geometry
    if geometry.columns < 2:
        raise GeometryError("A detector of one column says nothing of what lies where across it; no image can be made of it.")
    if size < 2:
        raise GeometryError(f"The image size must be at least 2 pixels, got {size}.")
    if field is None and scan.grid is not None:
        return scan.grid.resized(size)
    return VolumeGrid((size, size), _width(scan, field) / size)


def doubts_of_field(scan: Scan, grid: VolumeGrid, *, taken_out: bool = True) -> tuple[str, ...]:
    """What to know of an image on this grid, one sentence each: what it leaves out, and what was never measured.

    Parameters
    ----------
    scan : Scan
    grid : VolumeGrid
    taken_out : bool
        Whether what lies outside is taken out of the rays, as it is for slices.

    Raises
    ------
    GeometryError
        If the detector of a fan stands inside the object.
    """
    geometry, outline = scan.geometry, outline_of(scan)
    outside = "what lies outside is estimated and taken out of the rays" if taken_out else "what lies outside is not taken out"
    if isinstance(geometry, FanBeam):
        _refuse_detector_inside(scan, geometry)
    told = []
    width, seen = grid.shape[-1] * grid.voxel, geometry.field_of_view
    if seen <= 0:
        hole = float(np.abs(geometry.axis_distances(np.array([-0.5, geometry.columns - 0.5]))).min())
        told.append(f"No ray passes within {hole:.3g} mm of the rotation axis: the image is a guess there.")
    if outline.cut and only_drifts(scan, grid):
        told.append(
            f"Air reads something else in each view ({outline.level:.2g} on average, of at most {outline.top:.2g}), alike at "
            "both edges of the detector: the flux of views drifts. The method dip tells it by --systematics default,flux; else "
            f"it is taken for an object beside the {geometry.measured_field:.4g} mm that were measured, and {outside}."
        )
    elif len(outline.cut) > 1 and _reads_alike_beside(scan):
        told.append(
            f"Beside the object all views read {outline.level:.2g} (of at most {outline.top:.2g}), alike at both edges: the "
            "beam was weaker than in the flats, the values have an offset, or something wider than the "
            f"{geometry.measured_field:.4g} mm that were measured surrounds the object; {outside}. That "
            "leaves a haze of an offset: if it is the beam or an offset, say 'air: edges' in a geometry file."
        )
    elif outline.cut:
        told.append(
            f"The projections do not fall to air at the {' and '.join(outline.cut)} columns ({_in_views(scan, outline)} of at "
            f"most {outline.top:.2g}): the object reaches beyond the {geometry.measured_field:.4g} mm that were measured, so "
            f"the values are not quantitative; {outside}."
        )
    elif reaches_beyond(scan, grid):
        told.append(
            f"The object reaches {outline.reach:.4g} mm from the rotation axis, beyond the image of {width:.4g} mm; {outside} "
            "(--field all shows it)."
        )
    air = outline.edges
    if outline.top > 0 and air < -_DARK_AIR * outline.top:
        told.append(
            f"The air at the detector's edges reads {air:.2g}, below 0 by {-100 * air / outline.top:.2g} % of the most that "
            "rays read: flats, darks or a background are off, and every ray holds too little."
        )
    if 0 < seen < 0.98 * width and scan.grid is None:
        told.append(
            f"The image is {width:.4g} mm wide, and every view sees {seen:.4g} mm of it (--field common shows those only)."
        )
    angles = len(np.unique(np.round(np.mod(geometry.angles, np.pi), 6)))
    if scan.n_angles > 1 and angles == 1:
        told.append(f"All {scan.n_angles} views are of one direction, which says nothing of where along the rays something is.")
    return tuple(told)


def _in_views(scan: Scan, outline: Outline) -> str:
    level, views = outline.beyond
    return f"{outline.level:.2g}" if views == scan.n_angles else f"in {views} of {scan.n_angles} views, {level:.2g}"


def _refuse_detector_inside(scan: Scan, geometry: FanBeam) -> None:
    solid = scan.shadow.solid.sum(axis=0) > scan.n_angles / 50
    behind = geometry.source_to_detector - geometry.source_to_axis
    reach = float(np.abs(geometry.axis_distances(np.flatnonzero(solid))).max(initial=0.0))
    if reach > behind:
        raise GeometryError(
            f"The object reaches {reach:.4g} mm from the rotation axis, and the detector stands {behind:.4g} mm behind it, "
            "inside the object; check source_to_axis and source_to_detector (mm)."
        )


def half_width(grid: VolumeGrid, geometry: Geometry, reach: float) -> float:
    """Of a square about the axis that holds a grid and an object of this radius, as far as they lie before the source, mm."""
    left, right, bottom, top = grid.extent
    around = max(-left, right, -bottom, top)
    half = max(reach, around)
    return max(around, min(half, _BEFORE_SOURCE * geometry.source_to_axis)) if isinstance(geometry, FanBeam) else half


def reaches_beyond(scan: Scan, grid: VolumeGrid) -> bool:
    """Whether part of the object lies outside a grid: rays that pass it by see more than air."""
    left, right, bottom, top = grid.extent
    corners = np.array([(left, bottom), (left, top), (right, bottom), (right, top)])
    places, columns = detector_columns(scan.geometry, corners), np.arange(scan.geometry.columns)
    beside = (columns < places.min(1)[:, None] - _BESIDE) | (columns > places.max(1)[:, None] + _BESIDE)
    solid = scan.shadow.solid & beside
    return int(solid.sum()) >= max(_RAYS, _SHARE * solid.size)


def _reads_alike_beside(scan: Scan) -> bool:
    """Whether all views read the same at both edges and some way inwards, and much more between: no air, nor a cut object.

    So it is where the beam has weakened since its flats (of two real scans it read 17 and 35 % of the most), or in a furnace.
    """
    n = max(_FLAT_ENDS, scan.geometry.columns // 16)
    if scan.geometry.columns < 4 * n:
        return False
    used = np.ones(scan.projections.shape) if scan.weights is None else scan.weights > 0
    rays = np.asarray(scan.projections, np.float64) * used
    ends = [slice(n), slice(n, 2 * n), slice(-2 * n, -n), slice(-n, None)]
    blocks = np.stack([rays[:, end].sum(1) / np.maximum(used[:, end].sum(1), 1) for end in ends])
    level = float(blocks.mean())
    uneven = max(float(np.ptp(blocks.mean(1))), float(blocks.std(1).max()))
    more = float(np.percentile(rays, 99)) - level
    return uneven < _ALIKE * level and (more > level or uneven < _EVEN * more)


def only_drifts(scan: Scan, grid: VolumeGrid) -> bool:
    """Whether what rays beside the object read is the flux of each view: alike at both edges, and not there in some views.

    An object that reaches beyond is there in most views, and without what their edges read these hold less of it than others;
    of one that is seen whole all views then hold the same.

    Parameters
    ----------
    scan : Scan
    grid : VolumeGrid
        Of the image.
    """
    n = edge_columns(scan.geometry.columns)
    ends = np.r_[:n, -n:0]
    used = np.ones(scan.projections.shape) if scan.weights is None else scan.weights > 0
    rays, counted = np.asarray(scan.projections[:, ends], np.float64), used[:, ends]
    offsets = (rays * counted).sum(1) / np.maximum(counted.sum(1), 1)
    sums, count = (scan.projections * used).sum(1), used.sum(1)
    if np.quantile(offsets, _SOME) > _FAINT * offsets.mean() or (sums - offsets * count).std() > 0.5 * sums.std():
        return False
    level = replace(scan, projections=(scan.projections - offsets[:, None]).astype(np.float32))
    return not (outline_of(level).cut or reaches_beyond(level, grid))


def _width(scan: Scan, field: float | str | None) -> float:
    geometry = scan.geometry
    if field == "all":
        return geometry.measured_field
    if field == "common" and geometry.field_of_view <= 0:
        raise GeometryError("The rotation axis falls beside the detector, so no circle about it is seen by every view.")
    if field == "common":
        return geometry.field_of_view
    if field is None:
        outline = outline_of(scan)
        wanted = geometry.measured_field if outline.cut else 2 * outline.reach
        return max(geometry.field_of_view, min(wanted, geometry.measured_field))
    return checked_field(field)


def checked_field(field: float | str) -> float:
    """A width in mm.

    Raises
    ------
    InputError
        If it is none.
    """
    if isinstance(field, str) or not np.isfinite(field) or field <= 0:
        raise InputError(f"The field of an image is a positive number of mm, 'all' or 'common', not {field!r}.")
    return float(field)


def _longer_side(geometry: Geometry) -> int:
    return int(np.abs(geometry.axis_distances(np.array([-0.5, geometry.columns - 0.5]))).argmax())


def _goes_on(scan: Scan, shadow: Shadow) -> float:
    """How much wider an object is than the field, if its shadow goes on as a disc's: squares fall linearly in squares."""
    distances = scan.geometry.axis_distances(np.arange(scan.geometry.columns))
    mean = np.asarray(scan.projections, np.float64).mean(axis=0)
    far = np.abs(distances).max()
    squares = (distances / max(far, 1e-300)) ** 2
    if np.ptp(squares) < _TWO:
        return _USUAL
    slope, start = np.polyfit(squares, np.maximum(mean, 0) ** 2, 1)
    wide = np.sqrt(start / -slope) if slope < 0 < start else _USUAL
    return float(np.clip(wide, _NARROWEST, _WIDEST))
