"""Cost of the ray transform of a batch of 32 beside ASTRA's and ODL's: ``python -m experiments.benchmarks.ray_transform``.

Process CPU time on one thread, the best of several calls; libraries without batches are timed on one image, times 32. The limit
is the time that reading the matrix and moving each batch once would take at the bandwidth of a copy measured in the same run.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import tyro

from ctuq.tomo import ParallelBeam, VolumeGrid, adjoint_mismatch, ray_transform

BATCH = 32
PROBLEMS = {"128^2 x 60 x 183": (128, 60, 183), "256^2 x 180 x 363": (256, 180, 363)}
TARGETS = {"128^2 x 60 x 183": (6, 4), "256^2 x 180 x 363": (80, 60)}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    repeats: int = 9
    """Calls of each kind; the best counts."""
    small: bool = False
    """Leave out the 256^2 problem, whose matrix takes 10 s to build."""


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """Least process CPU time of a call."""
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def bandwidth(repeats: int) -> float:
    """Bytes a second that a large copy reads and writes."""
    source = torch.ones(2**25)
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / (milliseconds(lambda: target.copy_(source), repeats) / 1e3)


def ours(grid: VolumeGrid, geometry: ParallelBeam, options: Options) -> tuple[float, float, str]:
    A = ray_transform(grid, geometry)
    rng = torch.Generator().manual_seed(0)
    x, y = A.domain.randn(BATCH, rng=rng), A.range.randn(BATCH, rng=rng)
    times = milliseconds(lambda: A(x), options.repeats), milliseconds(lambda: A.T(y), options.repeats)
    moved = 8 * A.matrix.nnz + 4 * BATCH * (A.domain.size + A.range.size)
    limit = 1e3 * moved / bandwidth(options.repeats)
    note = f"adjoint error {adjoint_mismatch(A, rng=rng):.1e}; moves {moved / 2**20:.0f} MiB, limit {limit:.1f} ms"
    return *times, note


def astra_cpu(grid: VolumeGrid, geometry: ParallelBeam, options: Options) -> tuple[float, float, str]:
    import astra

    volume = astra.create_vol_geom(*grid.shape)
    projections = astra.create_proj_geom("parallel", geometry.pixel, geometry.columns, geometry.angles)
    projector = astra.create_projector("linear", projections, volume)
    x, y = np.ones(grid.shape, np.float32), np.ones(geometry.shape, np.float32)
    forward = milliseconds(lambda: astra.projector.direct_FP(projector, x, out=y), options.repeats)
    adjoint = milliseconds(lambda: astra.projector.direct_BP(projector, y, out=x), options.repeats)
    astra.projector.delete(projector)
    return BATCH * forward, BATCH * adjoint, "linear projector"


def odl_astra(grid: VolumeGrid, geometry: ParallelBeam, options: Options) -> tuple[float, float, str]:
    import odl
    from odl.applications import tomo

    left, right, bottom, top = grid.extent
    space = odl.uniform_discr([left, bottom], [right, top], grid.shape, dtype="float32")
    half = geometry.columns * geometry.pixel / 2
    angles = odl.uniform_partition(0, np.pi, len(geometry.angles))
    beam = tomo.Parallel2dGeometry(angles, odl.uniform_partition(-half, half, geometry.columns))
    operator = tomo.RayTransform(space, beam, impl="astra_cpu")
    x, y = space.one(), operator.range.one()
    forward = milliseconds(lambda: operator(x), options.repeats)
    adjoint = milliseconds(lambda: operator.adjoint(y), options.repeats)
    return BATCH * forward, BATCH * adjoint, "RayTransform, astra_cpu"


def main(options: Options) -> None:
    torch.set_num_threads(1)
    print(f"batch of {BATCH}: process CPU ms, 1 thread, best of {options.repeats}")
    for name, (size, views, columns) in list(PROBLEMS.items())[: 1 if options.small else None]:
        grid = VolumeGrid((size, size), 1.0)
        geometry = ParallelBeam(angles=np.arange(views) * np.pi / views, columns=columns, pixel=1.0)
        goal = "/".join(map(str, TARGETS[name]))
        print(f"\n{name:20s} {'forward':>9s} {'adjoint':>9s} {'ratio to ctuq':>15s}")
        first = None
        for label, method in [("ctuq", ours), ("ASTRA CPU", astra_cpu), ("ODL", odl_astra)]:
            forward, adjoint, note = method(grid, geometry, options)
            first = first or (forward, adjoint)
            ratio = f"{forward / first[0]:.1f} / {adjoint / first[1]:.1f}"
            aim = f" (to reach {goal})" if label == "ctuq" else ""
            print(f"{label:20s} {forward:9.1f} {adjoint:9.1f} {ratio:>15s}  {note}{aim}")


if __name__ == "__main__":
    main(tyro.cli(Options))
