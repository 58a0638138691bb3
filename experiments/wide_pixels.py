"""How many rays stand for a detector pixel: rays against those of objects drawn finer, and images made by them.

``python -m experiments.wide_pixels`` (5 minutes) writes ``figures/wide_pixels.csv`` and prints the means over the objects:
by how much rays of a wide pixel, of one ray, two, three or four, miss those averaged over it of an object drawn 8 (volumes: 4)
times finer than the pixels, and what total variation's image by one ray is off the truth over that by two.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from ctuq.recon import tv
from ctuq.tomo import ConeBeam, FanBeam, Parallel3D, ParallelBeam, VolumeGrid, ray_transform
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.rays import entries, joseph, stack
from experiments import FIGURES
from experiments.engine.rows import Row, Rows
from experiments.subpixel import bars, discs
from experiments.volume_truth import OBJECTS

OUTPUT = FIGURES / "wide_pixels.csv"
_WIDTHS = {
    "cone": (1.0, 1.1, 1.3, 1.5, 1.7, 2.0, 3.0),
    "parallel volume": (1.0, 1.1, 1.3, 1.5, 1.7, 2.0, 3.0),
    "parallel": (1.0, 1.1, 1.3, 1.5, 1.7, 2.0, 3.0),
    "fan": (0.6, 1.0, 1.4, 2.0),
}
_COUNTS = (1, 2, 3, 4)
_FIELD, _NOISE = 40.0, 0.02
_IMAGED = (1.1, 1.3, 1.5)
"""Images are made of these widths, but by fans."""


@contextmanager
def rays(count: int) -> Iterator[None]:
    """So many to a pixel, along each axis of its detector; what is built with them stays out of the user's cache."""
    with ExitStack() as patches:
        folder = patches.enter_context(tempfile.TemporaryDirectory())
        patches.enter_context(mock.patch.dict(os.environ, XDG_CACHE_HOME=folder))
        for module, name in ((entries, "rays_per_pixel"), (joseph, "joseph_rays"), (stack, "joseph_rays")):
            patches.enter_context(mock.patch.object(module, name, lambda *_: count))
        yield


def drawn(beam: str, size: int) -> dict[str, NDArray]:
    """Smooth objects and sharp ones, on a fine grid."""
    rng, dims = np.random.default_rng(0), 2 if beam in ("fan", "parallel") else 3
    t = (np.arange(size) + 0.5) / size * 2 - 1
    axes = np.meshgrid(*[t] * dims, indexing="ij")

    def blobs(width: float) -> NDArray:
        pixel, made = 2 * (8 if dims == 2 else 4) / size, np.zeros((size,) * dims)
        for _ in range(10):
            place, height = rng.uniform(-0.5, 0.5, dims), rng.uniform(0.3, 1)
            square = sum((a - p) ** 2 for a, p in zip(axes, place, strict=True))
            made += height * np.exp(-square / 2 / (width * pixel) ** 2)
        return made

    smooth = {"blobs of 2 pixels": blobs(2), "blobs of 1 pixel": blobs(1)}
    if dims == 3:
        return smooth | {name: draw(size, rng) for name, draw in OBJECTS.items()}
    named = {name: PHANTOMS[name](size, rng) for name in ("rectangles", "shepp-logan")}
    return smooth | {"bars": bars(size, rng), "discs": discs(size, rng)} | named


def scanner(beam: str, size: int, width: float, views: int):
    """Geometry of pixels that are so many voxels wide at the axis."""
    turn = np.pi if "parallel" in beam else 2 * np.pi
    columns, pixel = int(np.ceil(1.5 * size / width)) + 2, width * _FIELD / size
    shared = {"angles": np.arange(views) * turn / views + 0.013, "columns": columns}
    magnified = shared | {"pixel": 2 * pixel, "source_to_axis": 90.0, "source_to_detector": 180.0}
    if beam == "fan":
        return FanBeam(**magnified)
    if beam == "cone":
        return ConeBeam(rows=columns, **magnified)
    return (ParallelBeam if beam == "parallel" else Parallel3D)(
        pixel=pixel, **shared, **({} if beam == "parallel" else {"rows": columns})
    )


def rows_of(beam: str, width: float) -> list[Row]:
    """Misses of each object's rays, and errors of its images by one ray and two."""
    flat = beam in ("fan", "parallel")
    size, finer, views = (48, 8, 24) if flat else (16, 4, 9)
    solids = drawn(beam, size * finer)
    grid = VolumeGrid((size,) * (2 if flat else 3), _FIELD / size)
    fine = VolumeGrid(tuple(n * finer for n in grid.shape), grid.voxel / finer)
    imaged = beam != "fan" and width in _IMAGED
    views = (120 if flat else 36) if imaged else views
    geometry, blocks = scanner(beam, size, width, views), [m for n in grid.shape for m in (n, finer)]
    objects = torch.from_numpy(np.stack(list(solids.values()))).float()
    means = objects.reshape(-1, *blocks).mean(tuple(range(2, 2 + 2 * len(grid.shape) - 1, 2)))
    with rays(2 * finer if flat else int(np.ceil(2 * finer * width))):
        true = ray_transform(fine, geometry)(objects)
    made: list[Row] = [{"beam": beam, "width": width, "object": name} for name in solids]
    rng = torch.Generator().manual_seed(0)
    noisy = true + _NOISE * true.flatten(1).mean(1).reshape(-1, *[1] * (true.ndim - 1)) * torch.randn(true.shape, generator=rng)
    for count in _COUNTS:
        with rays(count):
            A = ray_transform(grid, geometry)
            for number, row in enumerate(made):
                row[f"miss_{count}"] = float((A(means[number]) - true[number]).norm() / true[number].norm())
                if count < 3:
                    scores = _image(A, noisy[number], true[number], means[number]) if imaged else (np.nan, np.nan)
                    row[f"image_{count}"], row[f"unseen_{count}"] = scores
    return made


def _image(A, y: torch.Tensor, seen: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """How far total variation's image by every other view is off the truth, and the rays of the others."""
    used, others = (np.arange(first, A.geometry.angles.size, 2) for first in (0, 1))
    x, judge = tv(A.subset(used), _views(y, used), iterations=150), _views(seen, others)
    miss = A.subset(others)(x) - judge
    return float((x - truth).norm() / truth.norm()), float(miss.norm() / judge.norm())


def _views(y: torch.Tensor, some: NDArray) -> torch.Tensor:
    return y.index_select(y.ndim - 2, torch.from_numpy(some))


def main(run: bool = True) -> None:
    """Measure what is not there yet, and print the table."""
    torch.set_num_threads(1)
    kept = Rows(OUTPUT)
    for beam, widths in _WIDTHS.items() if run else ():
        for width in widths:
            if not kept.where(beam=beam, width=width):
                kept.add(rows_of(beam, width))
                print(beam, width, flush=True)
    print("| rays | width | 1 ray misses | 2 | 3 | 4 | image by 1 over by 2 | unseen rays |\n|---|---|---|---|---|---|---|---|")
    for beam, widths in _WIDTHS.items():
        for width in widths:
            if not (rows := kept.where(beam=beam, width=width)):
                continue
            cells = [f"{100 * np.mean([float(row[f'miss_{n}']) for row in rows]):.2f} %" for n in _COUNTS]
            for name in ("image", "unseen"):
                ratio = np.exp(np.mean([np.log(float(row[f"{name}_1"]) / float(row[f"{name}_2"])) for row in rows]))
                cells.append("" if np.isnan(ratio) else f"{ratio:.2f}")
            print(" | ".join((f"| {beam}", f"{width}", *cells)) + " |")


if __name__ == "__main__":
    tyro.cli(main)
