"""What a stack takes, before it is made."""

from dataclasses import dataclass, replace

import torch

from ctuq.pipeline.image.edges import plan_of_edges
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.plan import FIT_BYTES, priced, speeds_of_fit
from ctuq.pipeline.stack.scan import BLOCK, COVARIANCE, Stack, rays_used
from ctuq.pipeline.views import rays_inside, split_views
from ctuq.recon.dip import generator, tries
from ctuq.recon.holdout import split
from ctuq.stages import Stages
from ctuq.tomo import ray_transform
from ctuq.tomo.volume_scan import VolumeScan
from ctuq.uncertainty.calibration.unseen import bytes_of_room

_FEW_ITERATIONS = 100
_WEIGHTS = 3.5e5
"""Bytes of a network's weights."""
_WORKER = 700 * 2**20
"""Of a worker with torch and ctuq, and no slice."""


@dataclass(frozen=True)
class StackPlan:
    """What a stack takes.

    Parameters
    ----------
    slices, teachers : int
    way : str
        Of the error bars of each, in words; empty without any.
    seconds : float
        Of all slices, on one processor.
    bytes : float
        Memory of a worker.
    disk : float
        Bytes of the results and of what is kept until they are written.
    kept : int
        In how many images each slice keeps its covariance.
    kept_bytes : float
        Of all of them in the results.
    """

    slices: int
    teachers: int
    way: str
    seconds: float
    bytes: float
    disk: float
    kept: int = 0
    kept_bytes: float = 0.0

    def __str__(self) -> str:
        took = f"{self.seconds / 60:.0f} min" if self.seconds >= 90 else f"{max(self.seconds, 1):.0f} s"
        way = f", each: {self.way}" if self.way else ""
        way += f". {self.teachers} of them teach the others" if self.way and self.slices > 1 else ""
        count = "1 slice" if self.slices == 1 else f"{self.slices} slices"
        return (
            f"{count}{way}. About {took} of one processor in all, {self.bytes / 2**30:.1f} GiB of memory a "
            f"worker and {self.disk / 2**30:.2g} GiB of disk{self._told_of_covariance()}."
        )

    def _told_of_covariance(self) -> str:
        if not self.kept:
            return ""
        size = self.kept_bytes / 2**30
        return f", {size:.2g} of the results for each slice's covariance in {self.kept} images (--covariance bounds it)"


def plan_stack(
    scan: VolumeScan,
    *,
    options: ReconstructOptions | None = None,
    covariance: float = COVARIANCE,
) -> StackPlan:
    """What a stack will take, from a few seconds of measurement on one of its slices.

    Parameters
    ----------
    scan, options, covariance
        As of `reconstruct_stack`.
    """
    stack = Stack.of(scan, None, options or ReconstructOptions(), covariance=covariance)
    plan = _planned(stack)
    return replace(plan, kept=stack.kept, kept_bytes=stack.kept_bytes, disk=plan.disk + 2 * stack.kept_bytes)


def _planned(stack: Stack) -> StackPlan:
    count, pixels, options = len(stack), stack.plane.size, stack.options
    disk = count * (8.0 * pixels * 2 + (_WEIGHTS if options.method == "dip" else 0.0))
    if options.method != "dip" and not options.bars:
        return StackPlan(count, 0, "", 0.01 * count, _WORKER + 64.0 * pixels, disk)
    scan = stack.row(stack.teachers[0])
    device, rng = torch.device("cpu"), torch.Generator().manual_seed(options.seed)
    A = ray_transform(stack.plane, scan.geometry, backend="matrix")
    if options.method != "dip":
        edges = plan_of_edges(A, rays_used(scan), way=stack.edges(), iterations=options.iterations)
        teachers = len(stack.teachers)
        return StackPlan(count, teachers, edges.reason, (count + teachers) * edges.total, edges.bytes, disk)
    views = split_views(options, scan)
    data = rays_inside(A, scan, views.held, device=device, stages=Stages())
    fit, _ = split(data, views.held, rng=rng)
    generate, start = generator(fit, options.dip, rng=rng)
    iterations = tries(fit, options.dip) * options.dip.expected
    one = priced(stack.route(), speeds_of_fit(fit, generate, start), iterations, fit_bytes=FIT_BYTES * pixels)
    cold = one.seconds["dip"]
    if not options.uncertainty:
        return StackPlan(count, 0, "", cold * _share_of_fit(stack), _WORKER + float(FIT_BYTES * pixels), disk)
    own = sum(one.seconds[name] for name in ("dip", "jacobian", "evidence"))
    following = one.seconds["jacobian"] + one.seconds["samples"] + 0.2 * one.seconds["evidence"]
    teachers = len(stack.teachers)
    seconds = teachers * own + cold * _share_of_fit(stack) + count * following
    most = one.bytes + bytes_of_room(scan.geometry, stack.plane.shape, rays_used(scan))
    return StackPlan(count, teachers, one.route.reason, seconds, most, disk)


def _share_of_fit(stack: Stack) -> float:
    """Whole fits that a stack takes: one a block, and the others' few iterations."""
    blocks = -(-len(stack) // BLOCK)
    return blocks + (len(stack) - blocks) * min(1.0, _FEW_ITERATIONS / stack.options.dip.expected)
