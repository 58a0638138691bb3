"""What is in a scan, and what is missing from it, as lines of text."""

import numpy as np

from ctuq.tomo.geometry import FanBeam, Geometry
from ctuq.tomo.scan import Scan

Lines = list[tuple[str, str]]


def scan_lines(scan: Scan) -> Lines:
    """Name and text of everything that a scan says about itself, lengths in mm and angles in degrees."""
    provenance = scan.provenance
    lines = [("source", provenance.source)]
    if provenance.sha256:
        lines.append(("SHA-256", provenance.sha256))
    lines += [(name, text) for name, text in provenance.facts.items()]
    lines += geometry_lines(scan.geometry)
    lines += _value_lines(scan)
    if scan.grid is not None:
        pixels = " × ".join(str(n) for n in reversed(scan.grid.shape))
        lines.append(("grid", f"{pixels} pixels of {scan.grid.voxel:.4g} mm"))
    lines += [("done", step) for step in provenance.steps]
    return [*lines, *(("missing", what) for what in missing(scan))]


def geometry_lines(geometry: Geometry) -> Lines:
    """Beam, views, detector, distances and field of view."""
    degrees = np.rad2deg(geometry.angles)
    fan = isinstance(geometry, FanBeam)
    steps = np.diff(np.sort(degrees))
    step = f", median step {np.median(steps):.4g}°" if steps.size else ""
    lines = [
        ("beam", "fan, flat detector" if fan else "parallel"),
        ("views", f"{len(degrees)}, {degrees.min():.4g}° to {degrees.max():.4g}°{step}"),
        ("detector", f"{geometry.columns} columns of {geometry.pixel:.4g} mm"),
    ]
    if fan:
        distances = f"source to axis {geometry.source_to_axis:.5g} mm, source to detector {geometry.source_to_detector:.5g} mm"
        lines.append(("distances", f"{distances}, magnification {geometry.magnification:.4g}"))
    offsets = f"detector {geometry.detector_offset:.4g} mm, rotation axis {geometry.axis_offset:.4g} mm"
    return [*lines, ("offsets", offsets), ("field of view", f"circle of {geometry.field_of_view:.4g} mm seen by every view")]


def missing(scan: Scan) -> list[str]:
    """What the scan does not say, and what follows from that."""
    gaps = []
    if scan.weights is None:
        gaps.append("counts or weights of the rays: all are taken as equally precise")
    if scan.truth is None:
        gaps.append("truth: the result is judged by held-out views only")
    if not scan.provenance.facts.get("licence"):
        gaps.append("licence")
    return gaps


def _value_lines(scan: Scan) -> Lines:
    values = scan.projections
    spread = f"{values.min():.4g} to {values.max():.4g}, mean {values.mean():.4g}"
    lines = [("projections", f"{' × '.join(str(n) for n in values.shape)} line integrals (no unit), {spread}")]
    if scan.weights is not None:
        dead = int((scan.weights == 0).sum())
        lines.append(("weights", f"{scan.weights.min():.4g} to {scan.weights.max():.4g}, {dead} rays of no weight"))
    if scan.truth is not None:
        lines.append(("truth", f"{scan.truth.min():.4g} to {scan.truth.max():.4g} 1/mm"))
    return lines
