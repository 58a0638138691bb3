"""What each command does: read, call the library, write. Imported only when a command runs."""

import os
import sys
import warnings
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctuq import files, pipeline
from ctuq.app.arguments import Command
from ctuq.app.calibration.command import run_calibrate
from ctuq.app.calibration.options import Calibrate
from ctuq.app.conversion import convert, refuse_other_data
from ctuq.app.doctor import examine, usable
from ctuq.app.export import export
from ctuq.app.facts import facts_of_result, facts_of_scan, facts_of_volume
from ctuq.app.folder import CHECKPOINT, RESULTS, held_folder
from ctuq.app.measure.command import measure
from ctuq.app.measure.options import Measure
from ctuq.app.measure.table import remembered
from ctuq.app.options import Convert, Demo, Doctor, Export, Info, Reconstruct, Report, Simulate
from ctuq.app.png import drawn
from ctuq.app.progress import TerminalBar, told_about
from ctuq.app.report.anew import image_report, volume_report
from ctuq.app.report.geometry import draw_geometry
from ctuq.app.report.summary import sentences
from ctuq.app.runs import REPORT, is_left, told_how_to_go_on
from ctuq.app.selection import selected
from ctuq.app.stacks import plan_of_stack, reconstruct_stack_into
from ctuq.app.terminal import give, say, warn
from ctuq.app.typed import field, simulated_angles
from ctuq.app.volumes import is_solid, plan_of_volume, reconstruct_volume_into, simulate_solid, tell_of_volume
from ctuq.errors import InputError
from ctuq.files.description import description_of
from ctuq.files.reading import opened, scan_of
from ctuq.linops.memory import keep_freed_memory
from ctuq.pipeline.image.job import made_by
from ctuq.pipeline.image.placed import placed
from ctuq.pipeline.running.checkpoint import remove
from ctuq.recon.dip import DIPOptions
from ctuq.records import kind_of, write_whole
from ctuq.text import visible
from ctuq.tomo import Scan
from ctuq.tomo.field import doubts_of_field
from ctuq.tomo.simulate import phantom_scan
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.storage import write_tiff
from ctuq.uncertainty.results.volume import KIND as VOLUME
from ctuq.uncertainty.results.volume import VolumeResult

_DEMO_STEP = 4
_PHRASES = ("source", "format", "data", "values", "beam", "angles", "detector", "weights", "truth")


def run(command: Command) -> int:
    """Do what was typed; the exit code."""
    return _DOES[type(command)](command)


def _demo(command: Demo) -> int:
    """Reconstruct every fourth view of the shipped walnut into the folder that is held, and open the report."""
    scan = files.read(files.demo_scan()).every(_DEMO_STEP)
    options = pipeline.ReconstructOptions(size=command.size, threads=_threads(command.threads))
    with told_about(command.debug):
        report_file = _run(scan, command.output, options, resume=command.resume)
    if command.open and _has_display():
        webbrowser.open(report_file.resolve().as_uri())
    return 0


def _info(command: Info) -> int:
    """Print what is in a scan and what reading it assumes, and draw its geometry on request."""
    if command.volume:
        return tell_of_volume(command)
    found = opened(_named(command.scan), geometry=command.geometry, entry=command.entry, follow_links=command.follow_links)
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
    _print_lines([("warning", text) for text in scan.warnings if text not in told])
    if command.draw is not None:
        data = drawn(draw_geometry, scan.geometry, scan.grid)
        write_whole(command.draw, lambda target: target.write(data))
        say(f"Drawn: {command.draw}")
    return 0


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


def _simulate(command: Simulate) -> int:
    """Write a simulated scan of a phantom."""
    angles = simulated_angles(command.angles)
    if command.size < 2:
        raise InputError(f"A simulation needs a --size of 2 or more, got {command.size}.")
    noise = _fraction(command.noise)
    refuse_other_data(command.output)
    if is_solid(command.phantom):
        return simulate_solid(command, angles, noise)
    if command.cone is not None:
        raise InputError(f"--cone is of volumes, and {command.phantom} is a slice; choose --phantom ball or shells.")
    scan = phantom_scan(command.phantom, command.size, angles, noise=noise, seed=command.seed)
    files.write_scan(scan, command.output)
    give(output=command.output, scan=facts_of_scan(scan))
    say(f"Written: {command.output}, {len(angles)} views of {command.phantom} with {100 * noise:g} % noise.")
    return 0


def _plan(command: Reconstruct) -> int:
    """Print which way a reconstruction would take, and what it needs."""
    if command.volume:
        return plan_of_volume(command)
    if command.stack:
        return plan_of_stack(command, _options(command))
    options = _options(command)
    chosen = placed(_chosen(command), options)
    grid = pipeline.choose_grid(chosen, options.size, options.field)
    warn(chosen.warnings + doubts_of_field(chosen, grid))
    rows, columns = grid.shape
    plan = pipeline.plan(chosen, options=options)
    give(plan=plan.record(), grid=grid)
    say(f"Plan: {plan}")
    say(f"Image: {columns} x {rows} pixels of {grid.voxel:.3g} mm, {columns * grid.voxel:.4g} mm wide.")
    return 0


def _reconstruct(command: Reconstruct) -> int:
    """Reconstruct the chosen views and write everything into the folder, which is held."""
    _refuse_mixed(command)
    if command.plan:
        return _plan(command)
    with told_about(command.debug):
        if command.volume:
            return reconstruct_volume_into(command, command.folder)
        if command.stack:
            return reconstruct_stack_into(command, command.folder, _options(command))
        options, scan = _options(command), _chosen(command)
        _run(scan, command.folder, options, resume=command.resume)
    return 0


def _refuse_mixed(command: Reconstruct) -> None:
    if command.stack and command.volume:
        raise InputError("--stack makes each slice by itself, --volume all of them as one; give one of them.")
    for option in ("slices", "covariance", "workers", "scheduler"):
        if getattr(command, option) is not None and not command.stack:
            raise InputError(f"--{option} is of stacks: add --stack, or leave it out.")


def _chosen(command: Reconstruct) -> Scan:
    scan = files.read(
        _named(command.scan),
        geometry=command.geometry,
        truth=command.truth,
        entry=command.entry,
        follow_links=command.follow_links,
    )
    return selected(scan, command.every, command.angles)


def _options(command: Reconstruct) -> pipeline.ReconstructOptions:
    if command.roi is not None:
        raise InputError("--roi is of volumes: add --volume, or leave it out to have error bars of every pixel.")
    if command.method == "fdk":
        raise InputError("FDK is of volumes: add --volume to take all detector rows, or choose --method fbp for a slice.")
    return pipeline.ReconstructOptions(
        method=command.method,
        size=command.size,
        field=field(command.field),
        uncertainty=_kind(command),
        samples=64 if command.samples is None else command.samples,
        calibrate=command.calibrate,
        calibration_views=command.calibration_views,
        systematics=command.systematics,
        material=command.material,
        dip=DIPOptions(start=command.start, iterations=command.iterations),
        prior=command.prior,
        variation=command.variation,
        threads=_threads(command.threads),
        device=command.device,
        seed=command.seed,
    )


def _kind(command: Reconstruct) -> bool | str:
    if command.bars is None:
        return command.uncertainty
    if not command.uncertainty:
        raise InputError(f"--uncertainty {command.bars} asks for error bars, --no-uncertainty for none; give one of them.")
    return command.bars


def _report(command: Report) -> int:
    """Write the report and the figures anew from the results file."""
    path = command.folder / RESULTS
    if not path.is_file():
        raise InputError(f"There is no {RESULTS} in {command.folder}; name the folder that ctuq reconstruct wrote.")
    with held_folder(command.folder):
        if kind_of(path) == VOLUME:
            with VolumeResult.open(path) as volume:
                facts, report = facts_of_volume(volume), volume_report(volume, command.folder, remembered(path))
        else:
            result = Result.load(path)
            facts, report = facts_of_result(result), image_report(result, command.folder, remembered(path))
    give(folder=command.folder, report=report, result=facts)
    say(f"Report: {report}")
    return 0


def _doctor(_: Doctor) -> int:
    """Print every check; exit code 2 if one failed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checks = examine()
    give(checks=checks, usable=usable(checks))
    for check in checks:
        say(f"[{check.status:^4}] {check.name}: {check.text}")
    say("ctuq can be used here." if usable(checks) else "ctuq cannot be used here until what failed is mended.")
    return 0 if usable(checks) else 2


def _run(scan: Scan, folder: Path, options: pipeline.ReconstructOptions, *, resume: bool) -> Path:
    """Reconstruct into a folder that is held; returns the report's path."""
    keep_freed_memory()
    checkpoint, report_file = folder / CHECKPOINT, folder / REPORT
    if not is_left(folder, lambda: made_by(Result.load(folder / RESULTS), scan, options), resume=resume):
        return report_file
    scan = placed(scan, options)
    told = scan.warnings + doubts_of_field(scan, pipeline.choose_grid(scan, options.size, options.field))
    warn(told)
    if not resume:
        remove(checkpoint)
    with told_how_to_go_on(checkpoint):
        with TerminalBar() as bar:
            result = pipeline.reconstruct(scan, options=options, progress=bar, checkpoint=checkpoint)
        result.save(folder / RESULTS)
        if result.std is None:
            (folder / "std.tif").unlink(missing_ok=True)
        write_tiff(result, folder)
        image_report(result, folder)
        remove(checkpoint)
    give(folder=folder, report=report_file, result=facts_of_result(result))
    for sentence in sentences(result):
        say(sentence)
    warn(tuple(text for text in result.warnings if text not in told))
    say(f"Report: {report_file}")
    return report_file


def _named(paths: tuple[Path, ...]) -> list[Path]:
    if not paths:
        raise InputError("Name a scan file.")
    return list(paths)


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


def _threads(wanted: int | None = None) -> int | None:
    """What was asked for; else what the environment says; else measured."""
    if wanted is not None and wanted < 1:
        raise InputError(f"--threads takes a positive whole number, got {wanted}.")
    return wanted or (None if "OMP_NUM_THREADS" in os.environ else 0)


def _has_display() -> bool:
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


_DOES: dict[type[Command], Callable[[Any], int]] = {
    Demo: _demo,
    Info: _info,
    Simulate: _simulate,
    Convert: convert,
    Reconstruct: _reconstruct,
    Measure: measure,
    Calibrate: run_calibrate,
    Report: _report,
    Export: export,
    Doctor: _doctor,
}
