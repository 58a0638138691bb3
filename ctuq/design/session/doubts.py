"""What a session's projections say against the scanner that it was told of: an axis beside its place, flux that drifts.

A design has no systematic errors in its model: gains, predicted errors and stops are those of the scanner as it was told.
"""

import numpy as np

from ctuq.design.problem import DesignProblem
from ctuq.design.session.file import Record
from ctuq.tomo.axis import axis_column
from ctuq.tomo.axis_doubt import contradicting_axis
from ctuq.tomo.field import only_drifts, outline_of
from ctuq.tomo.geometry import FanBeam, ParallelBeam
from ctuq.tomo.scan import Scan

_FEWEST = 5
_AXIS = (
    "The rotation axis is taken at column {:.1f}, but {} views say {:.1f} ± {:.1f}: what angles gain and the predicted error "
    "are worth little. Begin another session with 'axis_column: {:.1f}' in its geometry file."
)
_FLUX = (
    "Air reads something else in each view, alike at both edges of the detector ({:.2g} on average): the tube's flux drifts, "
    "which a session takes for an object beside the image. Divide each view by the open beam at its own time."
)


def doubts_of(record: Record, problem: DesignProblem) -> tuple[str, ...]:
    """A sentence for each, where views of a slice show it clearly."""
    state, geometry = record.state, problem.A.geometry
    if len(state.views) < _FEWEST or not isinstance(geometry, ParallelBeam | FanBeam):
        return ()
    scan = Scan(
        np.asarray(state.projections, np.float32), geometry.subset(state.views), weights=np.asarray(state.weights, np.float32)
    )
    told = ()
    other = contradicting_axis(scan)
    if other is not None:
        # The design's columns are means of the detector's.
        factor = int(record.geometry["columns"]) // geometry.columns
        there, found = (factor * (column + 0.5) - 0.5 for column in (axis_column(geometry), other.column))
        told += (_AXIS.format(there, len(state.views), found, factor * max(other.uncertainty, 0.1), found),)
    outline = outline_of(scan)
    if outline.cut and only_drifts(scan, problem.A.grid):
        told += (_FLUX.format(outline.level),)
    return told
