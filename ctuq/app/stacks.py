"""What ``ctuq reconstruct --stack`` does: slices of a parallel scan, here or on many processes."""

import shutil
from dataclasses import replace
from pathlib import Path

from ctuq import files
from ctuq.app.facts import facts_of_volume
from ctuq.app.folder import CHECKPOINT, RESULTS
from ctuq.app.options import Reconstruct
from ctuq.app.progress import TerminalBar, told_about
from ctuq.app.report.anew import volume_report
from ctuq.app.report.volume import sentences
from ctuq.app.runs import is_left, told_how_to_go_on
from ctuq.app.selection import chosen_views
from ctuq.app.terminal import answer, give, say, warn
from ctuq.app.typed import steps
from ctuq.app.volumes import write_tiffs
from ctuq.files.slices_truth import with_slices_truth
from ctuq.guard import reading
from ctuq.linops.memory import require_memory
from ctuq.pipeline import ReconstructOptions
from ctuq.pipeline.running.checkpoint import remove
from ctuq.pipeline.stack.job import made_by, reconstruct_stack
from ctuq.pipeline.stack.plan import StackPlan, plan_stack
from ctuq.pipeline.stack.scan import COVARIANCE
from ctuq.scale import cluster, require_one_crew
from ctuq.tomo.volume_scan import VolumeScan
from ctuq.uncertainty.results.volume import VolumeResult

_ROOM = 1.5
"""Memory that a worker may take, over what was planned."""


def plan_of_stack(command: Reconstruct, options: ReconstructOptions) -> int:
    """Print what a stack would take."""
    require_one_crew(command.workers, command.scheduler)
    scan = _chosen(command)
    plan = plan_stack(scan, options=options, covariance=_covariance(command))
    warn(scan.warnings)
    answer(f"Plan: {plan}")
    return 0


def reconstruct_stack_into(command: Reconstruct, folder: Path, options: ReconstructOptions) -> int:
    """Reconstruct slices and write them into a folder that is held."""
    require_one_crew(command.workers, command.scheduler)
    checkpoint, options = folder / CHECKPOINT, replace(options, threads=None)
    scan, covariance = _chosen(command), _covariance(command)
    warn(scan.warnings)
    if not is_left(folder, lambda: _is_made(folder, scan, options, covariance), resume=command.resume):
        return 0
    if not command.resume:
        remove(checkpoint)
    plan = plan_stack(scan, options=options, covariance=covariance)
    say(f"Plan: {plan}")
    warn(_short_of_disk(folder, plan))
    with told_about(command.debug), told_how_to_go_on(checkpoint), TerminalBar() as bar, _crew(command, plan) as executor:
        warn(_short_of_memory(getattr(executor, "memory", None), plan) if command.scheduler else ())
        reconstruct_stack(
            scan,
            options=options,
            covariance=covariance,
            executor=executor,
            progress=bar,
            checkpoint=checkpoint,
            output=folder / RESULTS,
        )
    with VolumeResult.open(folder / RESULTS) as result:
        write_tiffs(result, folder)
        report = volume_report(result, folder)
        warn(tuple(text for text in result.warnings if text not in scan.warnings))
        give(folder=folder, report=report, result=facts_of_volume(result))
        for sentence in sentences(result):
            say(sentence)
    remove(checkpoint)
    say(f"Report: {report}")
    return 0


def _is_made(folder: Path, scan: VolumeScan, options: ReconstructOptions, covariance: float) -> bool:
    with VolumeResult.open(folder / RESULTS) as result:
        return made_by(result, scan, options, covariance)


def _covariance(command: Reconstruct) -> float:
    return COVARIANCE if command.covariance is None else command.covariance


def _short_of_memory(most: int | None, plan: StackPlan) -> tuple[str, ...]:
    """A warning where no worker of somebody else's scheduler has what a slice is planned to take."""
    if most is None or plan.bytes <= most:
        return ()
    return (
        f"A worker takes about {plan.bytes / 2**30:.2g} GiB, and none of the scheduler's has more than {most / 2**30:.2g} GiB: "
        "start workers with more memory, or choose a smaller --size.",
    )


def _short_of_disk(folder: Path, plan: StackPlan) -> tuple[str, ...]:
    """A warning where what is planned does not fit; what an earlier run left in the folder is a part of it."""
    left = shutil.disk_usage(folder).free + sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if plan.disk <= left:
        return ()
    return (
        f"The stack takes about {plan.disk / 2**30:.2g} GiB of disk, and '{folder}' has {left / 2**30:.2g} GiB left: free some "
        "space, choose another folder, or a smaller --covariance.",
    )


def _crew(command: Reconstruct, plan: StackPlan):
    if command.workers:
        require_memory(command.workers * plan.bytes, f"{command.workers} workers together", "start fewer --workers")
    return cluster(command.workers, command.scheduler, memory=int(_ROOM * plan.bytes))


def _chosen(command: Reconstruct) -> VolumeScan:
    wanted, counted = command.slices, list[int]()

    def rows(count: int) -> range:
        counted.append(count)
        return range(count) if wanted is None else steps(wanted, "--slices", count)

    scan = files.read_volume(
        command.scan,
        geometry=command.geometry,
        entry=command.entry,
        follow_links=command.follow_links,
        rows=None if wanted is None else rows,
    )
    if command.truth is not None:
        of = counted[0] if counted else scan.geometry.rows
        with reading(command.truth, "a volume"):
            scan = with_slices_truth(scan, command.truth, rows=rows(of), of=of)
    views = chosen_views(scan.geometry, command.every, command.angles)
    return scan if views is None else scan.select(views)
