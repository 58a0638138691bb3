"""``ctuq reconstruct`` and ``ctuq demo``: read, choose the way, reconstruct, write; volumes and stacks go theirs."""

import os
import sys
import webbrowser
from pathlib import Path

from ctuq import files, pipeline
from ctuq.app.facts import facts_of_result
from ctuq.app.folder import CHECKPOINT, RESULTS
from ctuq.app.options import Demo, Reconstruct
from ctuq.app.progress import TerminalBar, told_about
from ctuq.app.report.anew import image_report
from ctuq.app.report.summary import sentences
from ctuq.app.runs import REPORT, is_left, told_how_to_go_on
from ctuq.app.selection import selected
from ctuq.app.stacks import plan_of_stack, reconstruct_stack_into
from ctuq.app.terminal import answer, give, say, warn
from ctuq.app.typed import field
from ctuq.app.volumes import plan_of_volume, reconstruct_volume_into
from ctuq.errors import InputError
from ctuq.linops.memory import keep_freed_memory
from ctuq.pipeline.image.job import made_by
from ctuq.pipeline.image.placed import placed
from ctuq.pipeline.running.checkpoint import remove
from ctuq.recon.dip import DIPOptions
from ctuq.tomo import Scan
from ctuq.tomo.field import doubts_of_field
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.storage import write_tiff

_DEMO_STEP = 4


def demo(command: Demo) -> int:
    """Reconstruct every fourth view of the shipped walnut into the folder that is held, and open the report."""
    scan = files.read(files.demo_scan()).every(_DEMO_STEP)
    options = pipeline.ReconstructOptions(size=command.size, threads=_threads(command.threads))
    with told_about(command.debug):
        report_file = _run(scan, command.output, options, resume=command.resume)
    if command.open and _has_display():
        webbrowser.open(report_file.resolve().as_uri())
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
    answer(f"Plan: {plan}")
    answer(f"Image: {columns} x {rows} pixels of {grid.voxel:.3g} mm, {columns * grid.voxel:.4g} mm wide.")
    return 0


def reconstruct(command: Reconstruct) -> int:
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
        command.scan,
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
        dip=DIPOptions(start=command.start, iterations=command.of_network),
        iterations=command.of_method,
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


def _threads(wanted: int | None = None) -> int | None:
    """What was asked for; else what the environment says; else measured."""
    if wanted is not None and wanted < 1:
        raise InputError(f"--threads takes a positive whole number, got {wanted}.")
    return wanted or (None if "OMP_NUM_THREADS" in os.environ else 0)


def _has_display() -> bool:
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
