"""What to know of a volume before its figures are trusted, one sentence each."""

import numpy as np
import torch

from ctuq.errors import InputError
from ctuq.pipeline.enough import told_of_air, told_of_rays
from ctuq.pipeline.volume.placed import axis_beside, scan_of_middle_row, stands
from ctuq.tomo.axis_doubt import OPENING, doubt_of_axis
from ctuq.tomo.field import doubts_of_field
from ctuq.tomo.footprint import unseen_share
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.stack import slice_of
from ctuq.tomo.rays.volume import VolumeTransform
from ctuq.tomo.shadow import CUT
from ctuq.tomo.space import ConeBeam, FreeBeam, Parallel3D, VolumeGeometry
from ctuq.tomo.volume_scan import VolumeScan

_UNSEEN, _LOST, _OUTSIDE = 0.02, 0.99, 1e-3
_SHORT, _LEANS = np.deg2rad(2), np.deg2rad(5)


def doubts_of_volume(scan: VolumeScan, grid: VolumeGrid) -> tuple[str, ...]:
    """What a volume on this grid leaves out, and what was not measured in all views.

    Raises
    ------
    InputError
        If hardly a ray is left, or of a cone hardly a voxel that all views see.
    """
    geometry, told = scan.geometry, [*told_of_rays(scan), *told_of_air(scan)]
    if not isinstance(geometry, FreeBeam):
        told += doubts_of_field(scan_of_middle_row(scan), slice_of(grid), taken_out=False)
    told += _short_arc(geometry)
    told += _cut_rows(scan)
    told += _axis_beside(scan)
    share = 0.0 if isinstance(geometry, FreeBeam) else unseen_share(grid, geometry)
    if isinstance(geometry, ConeBeam) and share > _LOST:
        raise InputError(
            f"{share:.0%} of the volume falls above or below the detector in some views, so hardly a voxel is told; check the "
            "middle row and the lengths (mm)."
        )
    if share > _UNSEEN:
        told.append(f"{share:.0%} of the volume falls above or below the detector in some views, and is less certain there.")
    if isinstance(geometry, Parallel3D) and geometry.axis_tilt:
        told.append("An axis that leans leaves directions unmeasured: edges that lie flat on it are blurred.")
    return tuple(told)


def left_outside(A: VolumeTransform, scan: VolumeScan) -> tuple[str, ...]:
    """A warning where rays that pass the volume by see more than air: iterative methods put what they saw into its edges."""
    lengths = A(torch.ones(A.domain.shape, device=A.device)).cpu().numpy()
    beside = (lengths == 0) & (scan.projections > CUT * np.percentile(scan.projections, 99))
    share = float(beside.mean())
    if share <= _OUTSIDE:
        return ()
    return (
        f"{share:.1%} of the rays see something and pass the volume by: the object reaches beyond it, which spoils its edges; "
        "take a wider --field, or FDK.",
    )


def _axis_beside(scan: VolumeScan) -> tuple[str, ...]:
    """A warning where the rays show the rotation axis beside its place."""
    found = None if any(text.startswith(OPENING) for text in scan.warnings) else axis_beside(scan)
    return () if found is None else (doubt_of_axis(scan_of_middle_row(scan), found),)


def _cut_rows(scan: VolumeScan) -> tuple[str, ...]:
    if isinstance(scan.geometry, Parallel3D) and stands(scan.geometry):
        return ()  # each row sees its own slice
    top = float(np.percentile(scan.projections, 99))
    ends = [name for name, row in (("lowest", 0), ("highest", -1)) if scan.projections[row].mean() > CUT * top]
    if not ends or top <= 0 or scan.geometry.rows == 1:
        return ()
    return (
        f"The projections do not fall to air at the {' and '.join(ends)} detector row: the object reaches beyond what was "
        "measured along z. FDK takes it to go on as it ends there, the other methods put what lies beyond into the outermost "
        "slices.",
    )


def _short_arc(geometry: VolumeGeometry) -> tuple[str, ...]:
    """A warning where directions are missing: a cone needs half a turn and its fan, parallel rays half a turn.

    Where the axis leans no view is the opposite of another, and a whole turn is needed. Of free cones half a turn is asked for.
    """
    leans = isinstance(geometry, Parallel3D) and abs(geometry.axis_tilt) > _LEANS
    turn = 2 * np.pi if geometry.diverging or leans else np.pi
    around = np.unique(np.round(np.mod(geometry.angles, turn), 9))
    if len(around) < 3:
        return ()
    gaps = np.diff(around, append=around[0] + turn)
    # Uneven steps of a whole turn, folded onto half of it, lie up to twice their mean apart, but not one alone.
    second, largest = np.sort(gaps)[-2:]
    covered = turn - float(largest - second)
    fan = 0.0
    if isinstance(geometry, ConeBeam):
        fan = 2 * np.arcsin(min(1.0, geometry.plane.field_of_view / 2 / geometry.source_to_axis))
    needed = turn if leans else np.pi + max(fan, 0.0)
    if covered >= needed - _SHORT:
        return ()
    return (
        f"The views cover {np.rad2deg(covered):.4g} degrees of the {np.rad2deg(needed):.4g} that this beam needs: edges along "
        "the missing directions are blurred.",
    )
