"""Where a fit begins with the rotation axis: where the scan has it, or, many columns off, where the rays clearly show it.

The model's axis is a derivative of the rays, right within a column or two. Of one that is ten columns of 42 off the network
makes an image of smears, at which that derivative says nothing.
"""

from dataclasses import replace

import torch

from ctuq.pipeline.bars import asked_errors
from ctuq.pipeline.counted import weighed_by_counts
from ctuq.pipeline.image.given import as_given
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.views import match_detector
from ctuq.tomo.axis import axis_column, centred
from ctuq.tomo.axis_doubt import OPENING, contradicting_axis, doubt_of_axis
from ctuq.tomo.field import choose_grid
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.scan import AXIS_MOVE, Scan
from ctuq.uncertainty.restricted import OF_WEIGHTS


def placed(scan: Scan, options: ReconstructOptions, *, moves: bool = True) -> Scan:
    """The scan with its rotation axis where a fit is to begin, and what to know of that among its warnings.

    Parameters
    ----------
    scan : Scan
    options : ReconstructOptions
        Where its systematic errors have no axis, the scan stays as it is.
    moves : bool
        Whether the ray transform can be made for another geometry; else a contradiction is only told.
    """
    asked = asked_errors(options.systematics, scan) if options.bars in OF_WEIGHTS else ()
    found = contradicting_axis(scan) if any(wish.name == "axis" for wish in asked) else None
    if found is None:
        return scan
    if not any(text.startswith(OPENING) for text in scan.warnings):
        scan = scan.warned(doubt_of_axis(scan, found))
    if not moves:
        return scan
    there = axis_column(scan.geometry)
    step = f"rotation axis moved from column {there:.2f} to {found.column:.2f}"
    moved = centred(scan, found.column, step)
    facts = {**scan.provenance.facts, AXIS_MOVE: f"{(found.column - there) * scan.geometry.pixel:.9g}"}
    moved = replace(moved, provenance=replace(moved.provenance, facts=facts))
    return moved.warned(
        f"The fit begins with the rotation axis at column {found.column:.2f}, where the rays say it is, and what is told of "
        f"the axis counts from there; --systematics none keeps column {there:.1f}."
    )


def matched(scan: Scan, options: ReconstructOptions) -> tuple[Scan, VolumeGrid]:
    """The scan as a reconstruction by ctuq's own ray transform uses it, and the image's grid."""
    scan = placed(as_given(scan), options)
    grid = choose_grid(scan, options.size, options.field)
    return weighed_by_counts(match_detector(scan, grid), options.size, torch.device("cpu")), grid
