"""What ``ctuq design next`` does: the next angles of a volume's scan."""

import time

import numpy as np

from ctuq import files
from ctuq.app.design.figures import draw_scores
from ctuq.app.design.options import Next
from ctuq.app.design.text import suggestion_lines
from ctuq.app.png import drawn
from ctuq.app.terminal import give, warn
from ctuq.app.typed import arcs, grid
from ctuq.design import CRITERIA, Designer, Turning
from ctuq.design.constraints import Arc
from ctuq.design.volumes import coarse_scan, volume_learner
from ctuq.errors import InputError
from ctuq.records import write_whole

# Rays along the voxels' axes promise information that no object holds (docs/angle_design.md).
_CANDIDATES = "2.5:360:5"
_SIZES = (4, 40)


def print_next(command: Next) -> list[str]:
    """The lines to print; the picture is written."""
    if not _SIZES[0] <= command.size <= _SIZES[1]:
        raise InputError(f"The design of a volume is made on {_SIZES[0]} to {_SIZES[1]} voxels across, not {command.size}.")
    began = time.perf_counter()
    scan = files.read_volume(command.scan, geometry=command.geometry)
    coarse = coarse_scan(
        scan,
        grid(command.candidates or _CANDIDATES),
        size=command.size,
        criterion=CRITERIA[command.criterion],
        forbidden=() if command.forbid is None else tuple(Arc(*ends) for ends in arcs(command.forbid, False)),
        turning=Turning(float(np.rad2deg(command.rotation_cost))),
    )
    warn(scan.warnings)
    designer = Designer(coarse.problem, volume_learner(command.prior))
    # They are measured, wherever they lie: what is forbidden is to ask for more there.
    designer.tell(coarse.measured, coarse.projections, coarse.weights, anyway=True)
    learned = time.perf_counter()
    suggestion = designer.ask(command.n)
    asked = time.perf_counter()
    give(suggestion=suggestion.to_dict(), measured_deg=np.rad2deg(coarse.measured))
    model, shape = designer.model, " x ".join(str(n) for n in coarse.problem.A.grid.shape)
    assert model is not None
    if command.draw is not None:
        data = drawn(draw_scores, coarse.problem.angles, suggestion, coarse.measured, dpi=150)
        write_whole(command.draw, lambda target: target.write(data))
    return [
        f"Measured: {len(coarse.measured)} views; {int(suggestion.available.sum())} angles are free.",
        f"Model ({command.prior}): {shape} voxels of {coarse.problem.A.grid.voxel:.4g} mm, detector averaged over "
        f"{coarse.bins[0]} x {coarse.bins[1]} pixels; {model.note}.",
        f"Predicted error: {designer.predicted_error:.4g} (root mean square, 1/mm)",
        *suggestion_lines(1, suggestion),
        f"It took {learned - began:.1f} s to learn from the measured views and {asked - learned:.1f} s to choose.",
        *([] if command.draw is None else [f"Drawn: {command.draw}"]),
    ]
