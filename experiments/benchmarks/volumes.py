"""Ray transforms of volumes: time of one projection and back-projection by every form, one thread, beside two limits.

``python -m experiments.benchmarks.volumes --size 64``: a volume of 64^3, 60 views (``--views``), a detector of 96^2. Operations
are counted: of the separable kernel three for each value between two lines of the volume and four for each ray in a plane, of
the others fifteen for each ray in a plane. "of flops" is their rate over that of a product of matrices in the same run, and
"of memory" the time that reading volume and projections (or the matrix) once would take over the time that it took.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import tyro

from ctuq.tomo import ConeBeam, VolumeGrid, adjoint_mismatch, ray_transform
from ctuq.tomo.rays.compiled import has_numba, separable
from ctuq.tomo.rays.joseph import rays_of

BACKENDS = ("numba", "numba, any vectors", "matrix", "torch")


@dataclass(frozen=True)
class Options:
    """What is measured."""

    size: int = 64
    views: int = 60
    repeats: int = 5
    batch: int = 1
    backends: tuple[str, ...] = BACKENDS


def problem(size: int, views: int, roll: float = 0.0) -> tuple[VolumeGrid, ConeBeam]:
    """A cone that holds the volume, detector 1.5 times as wide, pixels as wide as a voxel at the axis."""
    columns = size * 3 // 2
    angles = np.arange(views) * 2 * np.pi / views
    lengths = {"source_to_axis": 3.0 * size, "source_to_detector": 6.0 * size}
    return VolumeGrid((size,) * 3, 1.0), ConeBeam(angles=angles, rows=columns, columns=columns, pixel=2.0, **lengths, roll=roll)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The shortest CPU time of several runs, after one for compilers and caches."""
    work()
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken)


def main(options: Options) -> None:
    """Print a line for each form."""
    torch.set_num_threads(1)
    square = torch.randn(1024, 1024)
    flops = 2 * 1024**3 / seconds(lambda: square @ square, options.repeats)
    block, copy = torch.randn(2**25), torch.empty(2**25)
    bandwidth = 2 * block.nbytes / seconds(lambda: copy.copy_(block), options.repeats)
    print(f"one thread: {flops / 1e9:.0f} GFLOP/s of matrix products, {bandwidth / 1e9:.1f} GB/s of copies")
    heads = ("FP ms", "BP ms", "operations", "of flops", "of memory", "mismatch", "build s")
    print(f"{'':>20}" + "".join(f"{head:>11}" for head in heads))
    for name in options.backends:
        if name.startswith("numba") and not has_numba():
            print(f"{name:>20} is not installed (pip install 'ctuq[volumes]')")
            continue
        grid, geometry = problem(options.size, options.views, roll=1e-3 if "any" in name else 0.0)
        began = time.process_time()
        A = ray_transform(grid, geometry, backend=name.partition(",")[0])
        built = time.process_time() - began
        rng = torch.Generator().manual_seed(0)
        x, y = A.domain.randn(options.batch, rng=rng), A.range.randn(options.batch, rng=rng)
        forward, backward = (seconds(work, options.repeats) / options.batch for work in (lambda: A(x), lambda: A.T(y)))  # noqa: B023
        rays = rays_of(grid, geometry)
        steps = rays.count * options.size
        operations = 15 * steps
        if name == "numba" and separable(rays):
            operations = 4 * steps + 3 * steps / rays.rows * options.size
        moved = 4 * (A.domain.size + A.range.size)
        if name == "matrix":
            entries = 0.41 * rays.entries  # of rays that leave the volume at half of its planes
            operations, moved = 2 * entries, moved + 8 * entries
        share = operations / forward / flops, moved / bandwidth / forward
        print(
            f"{name:>20}{1e3 * forward:11.1f}{1e3 * backward:11.1f}{operations / 1e9:9.2f} G{share[0]:11.1%}{share[1]:11.2%}"
            f"{adjoint_mismatch(A, rng=rng):11.1e}{built:11.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
