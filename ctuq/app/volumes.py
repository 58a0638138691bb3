"""``ctuq reconstruct --volume``."""

from pathlib import Path

from ctuq import files
from ctuq.app.facts import facts_of_volume
from ctuq.app.folder import CHECKPOINT, RESULTS
from ctuq.app.options import Reconstruct
from ctuq.app.progress import TerminalBar
from ctuq.app.report.anew import volume_report
from ctuq.app.report.volume import sentences
from ctuq.app.runs import is_left, told_how_to_go_on
from ctuq.app.selection import chosen_views
from ctuq.app.terminal import answer, give, say, warn
from ctuq.app.typed import field, voxels
from ctuq.errors import InputError
from ctuq.linops.memory import available_memory, keep_freed_memory
from ctuq.pipeline.running.checkpoint import remove
from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.volume.doubts import doubts_of_volume
from ctuq.pipeline.volume.job import VolumePlan, plan_volume, reconstruct_volume, volume_made_by
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.systematics.catalogue import ANY
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.volume_scan import VolumeScan
from ctuq.uncertainty.results.tiff import write_volume_tiff
from ctuq.uncertainty.results.volume import VolumeResult


def plan_of_volume(command: Reconstruct) -> int:
    """Print what a volume would take."""
    options = _options(command)
    scan = _chosen(command)
    plan = plan_volume(scan, options)
    warn(scan.warnings + doubts_of_volume(scan, plan.grid) + _short_of_memory(plan))
    give(plan={"seconds": plan.seconds, "bytes": plan.bytes}, grid=plan.grid)
    answer(f"Plan: {plan}")
    answer(f"Volume: {_sizes(plan.grid)}.")
    return 0


def _short_of_memory(plan: VolumePlan) -> tuple[str, ...]:
    """A warning where the error bars' estimate, which is one from above, is more than there is: the system may end the run."""
    left = available_memory()
    if plan.bars is None or left is None or plan.peak <= left:
        return ()
    return (
        f"The error bars may need {plan.peak / 2**30:.1f} GiB and {left / 2**30:.1f} GiB are available: choose a smaller "
        "--size, fewer views by --every, or --no-uncertainty, if the system ends the run.",
    )


def reconstruct_volume_into(command: Reconstruct, folder: Path) -> int:
    """Reconstruct a volume and write it into a folder that is held."""
    keep_freed_memory()
    options, scan, checkpoint = _options(command), _chosen(command), folder / CHECKPOINT
    if not is_left(folder, lambda: volume_made_by(VolumeResult.load(folder / RESULTS), scan, options), resume=command.resume):
        return 0
    plan = plan_volume(scan, options)
    told = scan.warnings + doubts_of_volume(scan, plan.grid)
    warn(told + _short_of_memory(plan))
    say(f"Plan: {plan}")
    if not command.resume:
        remove(checkpoint)
    with told_how_to_go_on(checkpoint):
        with TerminalBar() as bar:
            result = reconstruct_volume(scan, options=options, plan=plan, progress=bar, checkpoint=checkpoint)
        result.save(folder / RESULTS)
        write_tiffs(result, folder)
        report = volume_report(result, folder)
        remove(checkpoint)
    give(folder=folder, report=report, result=facts_of_volume(result))
    for sentence in sentences(result):
        say(sentence)
    seconds = sum(result.timings.values())
    say(f"It took {seconds:.0f} s.")
    warn(tuple(text for text in result.warnings if text not in told))
    say(f"Report: {report}")
    return 0


def write_tiffs(result: VolumeResult, folder: Path) -> None:
    """Write ``mean.tif`` and, of a volume with error bars, ``std.tif``; one of an earlier run is removed."""
    for name in ("mean", "std"):
        if name in result.images:
            write_volume_tiff(folder / f"{name}.tif", result, name)
        else:
            (folder / f"{name}.tif").unlink(missing_ok=True)


def _chosen(command: Reconstruct) -> VolumeScan:
    scan = files.read_volume(
        command.scan,
        geometry=command.geometry,
        entry=command.entry,
        follow_links=command.follow_links,
        truth=command.truth,
    )
    views = chosen_views(scan.geometry, command.every, command.angles)
    return scan if views is None else scan.select(views)


def _options(command: Reconstruct) -> VolumeOptions:
    if command.material != ANY:
        raise InputError("--material uniform is of single slices so far; leave it out of volumes.")
    if command.method == "fbp":
        raise InputError("The method fbp is for slices; choose --method fdk with --volume.")
    if command.bars not in (None, "laplace") or (command.bars and command.method != "dip"):
        raise InputError(f"Error bars {command.bars!r} are of slices; of volumes the method dip alone has some, laplace.")
    if command.roi is not None and (command.method != "dip" or not command.uncertainty):
        raise InputError("--roi asks for error bars, which only --method dip with its uncertainty has; leave it out.")
    return VolumeOptions(
        method=command.method,
        size=command.size,
        field=field(command.field),
        device=command.device,
        threads=command.threads,
        seed=command.seed,
        calibrate=command.calibrate,
        calibration_views=command.calibration_views,
        uncertainty=command.uncertainty,
        samples=32 if command.samples is None else command.samples,
        systematics=command.systematics,
        roi=voxels(command.roi),
        dip=DIPOptions(network=UNetOptions(dims=3), start=command.start, iterations=command.of_network),
        iterations=command.of_method,
    )


def _sizes(grid: VolumeGrid) -> str:
    depth, height, width = grid.shape
    return f"{width} x {height} x {depth} voxels of {grid.voxel:.3g} mm, {width * grid.voxel:.4g} mm wide"
