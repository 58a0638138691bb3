"""``ctuq info`` and ``ctuq simulate``: what is in a scan, and scans of phantoms."""

import numpy as np
from numpy.typing import NDArray

from ctuq import files
from ctuq.app.conversion import refuse_other_data
from ctuq.app.facts import facts_of_scan
from ctuq.app.options import Info, Simulate
from ctuq.app.terminal import give, say
from ctuq.app.typed import distances, simulated_angles
from ctuq.errors import GeometryError, InputError
from ctuq.files.description import description_of
from ctuq.files.reading import opened, scan_of
from ctuq.records import write_whole
from ctuq.text import visible
from ctuq.tomo import Scan
from ctuq.tomo.field import choose_grid, doubts_of_field
from ctuq.tomo.geometry import radians
from ctuq.tomo.simulate import phantom_scan
from ctuq.tomo.solids import SOLIDS, solid_scan

_SIZE = 128
"""Pixels of an image of which it is told what it leaves out, which its size changes little."""
_PHRASES = ("source", "format", "data", "values", "beam", "angles", "detector", "weights", "truth")


def info(command: Info) -> int:
    """Print what is in a scan and what reading it assumes, and draw its geometry on request."""
    if command.volume:
        return _volume_info(command)
    found = opened(command.scan, geometry=command.geometry, entry=command.entry, follow_links=command.follow_links)
    described = [description_of(raw, path) for path, raw in found]
    give(files=described)
    for description in described:
        _print_lines(_description_lines(description))
    if command.draw is None and any(description.missing for description in described):
        return 0
    # The scan itself tells what its correction repairs, searches and leaves out, and is refused here as everywhere.
    scan = scan_of(found)
    told = {text for description in described for text in description.warnings}
    give(scan=facts_of_scan(scan))
    _print_lines([("warning", text) for text in (*scan.warnings, *_of_field(scan)) if text not in told])
    if command.draw is not None:
        # Drawing takes longer to import than a scan to read, and few ask for it.
        from ctuq.app.png import drawn
        from ctuq.app.report.geometry import draw_geometry

        data = drawn(draw_geometry, scan.geometry, scan.grid)
        write_whole(command.draw, lambda target: target.write(data))
        say(f"Drawn: {command.draw}")
    return 0


def _of_field(scan: Scan) -> tuple[str, ...]:
    """What an image by default leaves out, or why there is none."""
    try:
        return doubts_of_field(scan, choose_grid(scan, _SIZE))
    except GeometryError as error:
        return (str(error),)


def _print_lines(lines: list[tuple[str, str]]) -> None:
    for name, text in lines:
        say(f"{name:>13}  {visible(text)}")


def _description_lines(description: files.Description) -> list[tuple[str, str]]:
    """Name and phrase of everything that a file says, then what was assumed and what is missing."""
    lines = [(name, getattr(description, name)) for name in _PHRASES]
    lines.insert(_PHRASES.index("weights"), ("rotation axis", description.axis))
    lines += [("", fact) for fact in description.facts]
    lines += [("history", text) for text in description.history]
    lines += [("warning", text) for text in description.warnings]
    lines += [("MISSING", text) for text in description.missing] + [("REFUSED", description.refused)]
    return [line for line in lines if line[1]] + _unsaid(description)


def _unsaid(description: files.Description) -> list[tuple[str, str]]:
    """What is not needed, but changes how the result is to be judged."""
    gaps = []
    if not description.weights and "counts" not in description.values:
        gaps.append(("not given", "counts or weights of the rays: all count alike unless their noise grows with attenuation"))
    if not description.truth:
        gaps.append(("not given", "truth: a result is judged by held-out views"))
    return gaps


def simulate(command: Simulate) -> int:
    """Write a simulated scan of a phantom."""
    angles = simulated_angles(command.angles)
    if command.size < 2:
        raise InputError(f"A simulation needs a --size of 2 or more, got {command.size}.")
    noise = _fraction(command.noise)
    refuse_other_data(command.output)
    if command.phantom in SOLIDS:
        return _simulate_solid(command, angles, noise)
    if command.cone is not None:
        raise InputError(f"--cone is of volumes, and {command.phantom} is a slice; choose --phantom ball or shells.")
    scan = phantom_scan(command.phantom, command.size, angles, noise=noise, seed=command.seed)
    files.write_scan(scan, command.output)
    give(output=command.output, scan=facts_of_scan(scan))
    say(f"Written: {command.output}, {len(angles)} views of {command.phantom} with {100 * noise:g} % noise.")
    return 0


def _fraction(text: str) -> float:
    """A noise level such as "5%" or "0.05"; whole numbers without % are refused as ambiguous."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        raise InputError(f"--noise takes a number such as 5% or 0.05, not {text!r}.") from None
    if text.strip().endswith("%"):
        return value / 100
    if value >= 1:
        raise InputError(
            f"--noise {text} would be {100 * value:g} % of the mean projection; write {text}% or a number below 1."
        )
    return value


def _volume_info(command: Info) -> int:
    """Print the geometry of a volume's scan and its warnings, and draw it from three sides on request."""
    from ctuq.app.report.space import draw_space, geometry_lines

    scan = files.read_volume(command.scan, geometry=command.geometry, entry=command.entry, follow_links=command.follow_links)
    give(scan=facts_of_scan(scan))
    truth = [] if scan.truth is None else [("truth", f"{scan.truth.shape} voxels")]
    told = [("source", scan.provenance.source), *geometry_lines(scan.geometry), *truth]
    told += [("history", step) for step in scan.provenance.steps if step not in scan.warnings]
    for name, text in told + [("warning", text) for text in scan.warnings]:
        say(f"{name:>18}  {visible(text)}")
    if command.draw is not None:
        from ctuq.app.png import drawn

        data = drawn(draw_space, scan.geometry, scan.grid)
        write_whole(command.draw, lambda target: target.write(data))
        say(f"Drawn: {command.draw}")
    return 0


def _simulate_solid(command: Simulate, angles: NDArray, noise: float) -> int:
    """Write a simulated scan of a volume."""
    to = distances(command.cone)
    if isinstance(command.angles, int) and to is not None:
        # A cone needs the whole turn, as no two opposite views of it are alike.
        angles = radians(np.arange(command.angles) * 360.0 / command.angles)
    scan = solid_scan(command.phantom, command.size, angles, noise=noise, seed=command.seed, distances=to)
    files.write_volume_scan(scan, command.output)
    rows, views, columns = scan.geometry.shape
    give(output=command.output, scan=facts_of_scan(scan))
    beam = "parallel rays" if to is None else f"a cone of {to[0]:g} and {to[1]:g} mm"
    say(
        f"Written: {command.output}, {views} views of {command.phantom} by {beam} onto {rows} x {columns} pixels with "
        f"{100 * noise:g} % noise."
    )
    return 0
