"""Every stage on a GPU beside the CPU: ``python -m experiments.gpu_check``. A stage that fails is reported, the next one runs.

Nothing has been measured on a GPU yet: no figure of ``figures/gpu.csv`` or of the documentation is one of a GPU before this has
run on one. The tests run on a pretended GPU (`tests/helpers/pretend.py`), which knows nothing of cuSPARSE, cuDNN, ASTRA's
kernels, memory or time.

The stage ``astra_cuda`` needs CUDA 12's cuFFT and runtime, which ASTRA's wheels do not bring:
``pip install nvidia-cuda-runtime-cu12 nvidia-cufft-cu12``.

Writes ``figures/gpu.csv``, one line a number with the card's name, and the same as JSON. ``--device cpu --small`` tries the
script itself, and writes only if told where.
"""

import csv
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

import ctuq
from ctuq.linops.jacobian.network import jacobian_of
from ctuq.recon.dip import Data, DIPOptions, dip, generator
from ctuq.recon.fdk import fdk
from ctuq.recon.unet import UNet, UNetOptions
from ctuq.tomo import ConeBeam, FanBeam, Geometry, ParallelBeam, VolumeGrid, adjoint_mismatch, ray_transform
from ctuq.tomo.phantoms import shepp_logan
from ctuq.tomo.rays.volume import volume_transform
from ctuq.tomo.simulate import RelativeNoise, simulate
from experiments import FIGURES

FIELDS = ("card", "stage", "case", "quantity", "value")

Found = Iterator[tuple[str, str, float]]
"""Of a stage: case, quantity, value."""


@dataclass(frozen=True)
class Options:
    """What to check."""

    device: str = "cuda:0"
    small: bool = False
    """Sizes that a CPU does in seconds."""
    only: tuple[str, ...] = ()
    """Names of stages; all if empty."""
    output: Path | None = None
    """Folder of gpu.csv and gpu.json; by default figures/ for a GPU, and nowhere for a CPU."""


def main(options: Options) -> int:
    """Run the stages; how many failed."""
    device = torch.device(options.device)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    output = options.output or (FIGURES if device.type == "cuda" else None)
    lines: list[tuple[str, ...]] = []
    failed = []
    for name, stage in STAGES.items():
        if options.only and name not in options.only:
            continue
        found, fault = _run(stage, device, options.small)
        lines += [(card, name, case, quantity, f"{value:.4g}") for case, quantity, value in found]
        if fault:
            failed.append(name)
            lines.append((card, name, "", "FAILED", fault))
        for line in lines[len(lines) - len(found) - bool(fault) :]:
            print("  ".join(line[1:]), flush=True)
        if output is not None:
            _write(output, lines)
    print(f"{card}: {'failed: ' + ', '.join(failed) if failed else 'every stage ran'}")
    return len(failed)


def _run(stage: Callable[[torch.device, bool], Found], device: torch.device, small: bool) -> tuple[list, str]:
    found = []
    try:
        for line in stage(device, small):
            found.append(line)
    except Exception as error:
        places = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)][-3:]
        return found, f"{type(error).__name__}: {str(error)[:300]} ({', '.join(places)})"
    return found, ""


def _write(folder: Path, lines: list[tuple[str, ...]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "gpu.csv").open("w", newline="") as file:
        csv.writer(file).writerows([FIELDS, *lines])
    (folder / "gpu.json").write_text(json.dumps([dict(zip(FIELDS, line, strict=True)) for line in lines], indent=1))


def matrix_products(device: torch.device, small: bool) -> Found:
    """The sparse matrix and its transpose, for few and for many images."""
    for n, views in [(32, 12)] if small else [(128, 60), (501, 60)]:
        geometry, grid = beams(n, views)["parallel"], square(n)
        host, there = (
            ray_transform(grid, geometry, backend="matrix"),
            ray_transform(grid, geometry, backend="matrix", device=device),
        )
        yield f"{n}", "adjoint mismatch", adjoint_mismatch(there, rng=rng())
        for k in (1, 8, 32):
            x, y = torch.randn(k, *host.domain.shape, generator=rng()), torch.randn(k, *host.range.shape, generator=rng())
            yield from compared(f"{n} x {k} forward", host, there, x, device)
            yield from compared(f"{n} x {k} back", host.T, there.T, y, device)


def astra_cuda(device: torch.device, small: bool) -> Found:
    """ASTRA's kernels beside the matrix: their back-projection is not the exact transpose, by how much is measured."""
    if device.type != "cuda":
        return
    for n, views in [(32, 12)] if small else [(128, 60), (501, 60)]:
        for name, geometry in beams(n, views).items():
            host, there = (
                ray_transform(square(n), geometry),
                ray_transform(square(n), geometry, backend="astra-cuda", device=device),
            )
            x = torch.from_numpy(shepp_logan(n).astype(np.float32))[None]
            yield f"{name} {n}", "adjoint mismatch", adjoint_mismatch(there, rng=rng())
            yield from compared(f"{name} {n} forward", host, there, x, device)
            yield from compared(f"{name} {n} back", host.T, there.T, host(x), device)
            yield from compared(f"{name} {n} x 8 back", host.T, there.T, host(x).expand(8, -1, -1).contiguous(), device)


def jacobian_products(device: torch.device, small: bool) -> Found:
    """A row of products with the Jacobian of the default network, of images and of volumes."""
    for dims, n in [(2, 16), (3, 8)] if small else [(2, 128), (2, 501), (3, 64)]:
        network, z = UNet(UNetOptions(dims=dims), rng()), torch.rand(1, 1, *[n] * dims, generator=rng())
        _, host = jacobian_of(network, z)
        v, u = host.domain.randn(2, rng=rng()), host.range.randn(2, rng=rng())
        expected = host(v), host.T(u)
        _, there = jacobian_of(network.to(device), z.to(device))
        v, u = v.to(device), u.to(device)
        case = f"{dims}D {n}"
        for quantity, operator, x, host_value in (("forward", there, v, expected[0]), ("back", there.T, u, expected[1])):
            yield case, f"{quantity} ms a row", milliseconds(lambda A=operator, x=x: A(x), device) / len(x)
            yield case, f"{quantity} gap", gap(operator(x), host_value)


def dense_algebra(device: torch.device, small: bool) -> Found:
    """Float64 of the size that exact evidence takes, which consumer cards do at a 32nd of the speed of float32."""
    m = 256 if small else 3072
    A = torch.randn(m, m, generator=rng(), dtype=torch.float64)
    K = (A @ A.T / m + torch.eye(m, dtype=torch.float64)).to(device)
    yield f"{m}", "cholesky float64 ms", milliseconds(lambda: torch.linalg.cholesky(K), device)
    yield f"{m}", "cholesky float32 ms", milliseconds(lambda: torch.linalg.cholesky(K.float()), device)
    yield f"{m}", "product float64 ms", milliseconds(lambda: K @ K, device)
    yield f"{m}", "eigenvectors float64 ms", milliseconds(lambda: torch.linalg.eigh(K), device, 1)
    yield f"{m}", "cholesky gap", gap(torch.linalg.cholesky(K), torch.linalg.cholesky(K.cpu()))


def pipeline(device: torch.device, small: bool) -> Found:
    """A whole reconstruction, each stage of it timed, with the same seed on both."""
    n, iterations = (12, 20) if small else (64, 1000)
    scan = simulated(n, 10 if small else 40)
    settings = {"size": n, "samples": 8, "dip": DIPOptions(iterations=iterations)}
    host = ctuq.reconstruct(scan, device="cpu", **settings)
    there = ctuq.reconstruct(scan, device=str(device), **settings)
    for name, seconds in there.timings.items():
        yield f"{n}", f"{name} s", seconds
        yield f"{n}", f"{name} s on the CPU", host.timings[name]
    for name in ("mean", "std"):
        yield f"{n}", f"{name} gap", gap(torch.from_numpy(getattr(there, name)), torch.from_numpy(getattr(host, name)))
    yield f"{n}", "log evidence difference", there.log_evidence - host.log_evidence


def fit_rate(device: torch.device, small: bool) -> Found:
    """Iterations a second of the default fit."""
    for n in (16,) if small else (128, 256, 501):
        scan = simulated(n, 12 if small else 60)
        A = ray_transform(square(n), scan.geometry, device=device, backend="matrix")
        y = torch.tensor(scan.projections, device=device)[None]
        data = Data(A, y, torch.ones_like(y))
        options = DIPOptions(iterations=20 if small else 200, check_every=10)
        generate, start = generator(data, options, rng=rng())
        began, first = 0.0, 0
        for state in dip(generate, start, data, data, options):
            synchronise(device)
            if not first:
                began, first = time.perf_counter(), state.iteration
        if state.iteration > first:
            yield f"{n}", "iterations a second", (state.iteration - first) / (time.perf_counter() - began)


def volumes(device: torch.device, small: bool) -> Found:
    """Cone beam by torch's sampling, and FDK."""
    for n, views in [(12, 6)] if small else [(64, 60), (128, 120)]:
        angles = 2 * np.pi * np.arange(views) / views
        geometry = ConeBeam(
            angles=angles,
            rows=int(1.5 * n),
            columns=int(1.5 * n),
            pixel=2.0,
            source_to_axis=4.0 * n,
            source_to_detector=8.0 * n,
        )
        grid = VolumeGrid((n, n, n), 1.0)
        host, there = (volume_transform(grid, geometry, backend="torch", device=d) for d in ("cpu", device))
        x = torch.rand(grid.shape, generator=rng())
        yield f"{n}", "adjoint mismatch", adjoint_mismatch(there, rng=rng())
        yield from compared(f"{n} forward", host, there, x, device)
        y = host(x)
        yield from compared(f"{n} back", host.T, there.T, y, device)
        yield from compared(f"{n} FDK", lambda y, A=host: fdk(A, y), lambda y, A=there: fdk(A, y), y, device)


STAGES: dict[str, Callable[[torch.device, bool], Found]] = {
    f.__name__: f for f in (matrix_products, astra_cuda, jacobian_products, dense_algebra, pipeline, fit_rate, volumes)
}


def compared(
    case: str, host: Callable[[Tensor], Tensor], there: Callable[[Tensor], Tensor], x: Tensor, device: torch.device
) -> Found:
    """How long a function takes here and there, and how far apart the answers are."""
    moved = x.to(device)
    yield case, "ms", milliseconds(lambda: there(moved), device)
    yield case, "ms on the CPU", milliseconds(lambda: host(x), x.device, 2)
    yield case, "gap", gap(there(moved), host(x))


def gap(found: Tensor, expected: Tensor) -> float:
    """Relative distance."""
    return float((found.cpu().double() - expected.cpu().double()).norm() / expected.cpu().double().norm())


def milliseconds(call: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Least time of a call, after one that is not counted."""
    best = float("inf")
    for i in range(repeats + 1):
        synchronise(device)
        start = time.perf_counter()
        call()
        synchronise(device)
        best = min(best, time.perf_counter() - start) if i else best
    return 1e3 * best


def synchronise(device: torch.device) -> None:
    """Wait for a GPU, which is told of work before it does it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def square(n: int) -> VolumeGrid:
    return VolumeGrid((n, n), 1.0)


def beams(n: int, views: int) -> dict[str, Geometry]:
    angles, columns = np.arange(views) * np.pi / views, int(1.42 * n)
    return {
        "parallel": ParallelBeam(angles=angles, columns=columns, pixel=1.0),
        "fan": FanBeam(angles=2 * angles, columns=columns, pixel=2.0, source_to_axis=4.0 * n, source_to_detector=8.0 * n),
    }


def simulated(n: int, views: int) -> ctuq.Scan:
    """A noisy parallel scan of the Shepp-Logan phantom."""
    noise, draw = RelativeNoise(0.05), np.random.default_rng(0)
    return simulate(shepp_logan, beams(n, views)["parallel"], square(n), noise, rng=draw, attenuation=1 / n)


if __name__ == "__main__":
    sys.exit(min(1, main(tyro.cli(Options, description=__doc__))))
