"""Weights for the educated start: the default U-Net, trained to turn a first image into the object.

``python -m experiments.pretrain`` draws random phantoms, simulates scans of many geometries, view counts, noise levels and
sizes, trains, and writes ``ctuq/data/educated.npz``. Everything follows from the seed; an interrupted run goes on.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from ctuq.recon.educated import save_educated
from ctuq.recon.start import first_image
from ctuq.recon.unet import UNet, UNetOptions
from ctuq.records import write_whole
from ctuq.tomo import FanBeam, ParallelBeam, VolumeGrid, ray_transform
from ctuq.tomo.geometry import Geometry
from experiments import ROOT
from experiments.pretrain_phantoms import draw

_FINER = 2


@dataclass(frozen=True)
class Options:
    """How to train."""

    steps: int = 12000
    """Adam steps, of one geometry and four images each."""
    batch: int = 4
    """Images of one step."""
    rate: float = 2e-3
    """Peak learning rate; it falls along a cosine."""
    geometries: int = 250
    """Scans to draw objects for."""
    objects: int = 16
    """Objects of one geometry."""
    largest: int = 64
    """Largest image's side in pixels; the network is convolutional."""
    seed: int = 0
    """Of all that is drawn."""
    minutes: float = 30.0
    """Stop after so many; run again to go on."""
    output: Path = ROOT / "ctuq" / "data" / "educated.npz"
    """Weights to write."""
    state: Path = ROOT / "build" / "pretrain.pt"
    """Where an interrupted run goes on."""


def geometry(rng: np.random.Generator, size: int) -> tuple[VolumeGrid, Geometry]:
    """A scan: parallel or fan, over a half or full turn or an arc, with few or many views and a shifted detector at times."""
    grid = VolumeGrid((size, size), 1.0)
    views = int(np.exp(rng.uniform(np.log(3), np.log(60))))
    limited, fan = rng.uniform() < 0.35, rng.uniform() < 0.5
    extent = rng.uniform(20, 160) if limited else 360.0 if fan and rng.uniform() < 0.6 else 180.0
    if not limited and extent == 180.0 and fan:
        extent = 200.0
    angles = np.deg2rad(rng.uniform(-180, 180) + extent * np.arange(views) / views)
    pitch = rng.uniform(0.7, 1.2)
    wide = 1.42 if rng.uniform() < 0.7 else 1.02
    shift = rng.normal(0, 0.5) if rng.uniform() < 0.3 else 0.0
    columns = int(np.ceil(wide * size / pitch)) + 2
    if not fan:
        return grid, ParallelBeam(angles=angles, columns=columns, pixel=pitch, detector_offset=shift)
    source, magnification = rng.uniform(1.5, 8) * size, rng.uniform(1.1, 2.5)
    widen = 1.0 + 0.6 * size / source
    columns = int(np.ceil(columns * widen))
    return grid, FanBeam(
        angles=angles,
        columns=columns,
        pixel=pitch * magnification,
        source_to_axis=source,
        source_to_detector=source * magnification,
        detector_offset=shift * magnification,
    )


def examples(options: Options, which: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets ``(objects, y, x)`` of one geometry, both over the scan's scale."""
    rng = np.random.default_rng((options.seed, which))
    size = int(rng.choice([s for s in (32, 40, 48, 56, 64, 96, 128) if s <= options.largest]))
    grid, beam = geometry(rng, size)
    fine = VolumeGrid((size * _FINER, size * _FINER), grid.voxel / _FINER)
    objects = np.stack([draw(size * _FINER, rng) for _ in range(options.objects)]).astype(np.float32)
    with torch.no_grad():
        y = ray_transform(fine, beam, backend="matrix")(torch.from_numpy(objects))
        level = torch.from_numpy(rng.uniform(0, 1, len(objects)).astype(np.float32) ** 2 * 0.2)[:, None, None]
        noise = torch.from_numpy(rng.standard_normal(y.shape).astype(np.float32))
        y = y + level * y.abs().mean((1, 2), keepdim=True) * noise
        A = ray_transform(grid, beam, backend="matrix")
        inputs, scale = first_image(A, y, torch.ones_like(y))
    coarse = torch.from_numpy(objects).unflatten(1, (size, _FINER)).unflatten(3, (size, _FINER)).mean((2, 4))
    targets = coarse / scale[:, None, None]
    usable = torch.isfinite(scale) & (scale > 0) & (targets.amax((1, 2)) < 20)
    return inputs[usable], targets[usable]


def batches(options: Options, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches from step ``first`` on; a geometry's examples are drawn once and turned and mirrored at every use."""
    pool: dict[int, tuple[Tensor, Tensor]] = {}
    for step in range(first, options.steps):
        rng = np.random.default_rng((options.seed, 1, step))
        which = int(rng.integers(options.geometries))
        if which not in pool:
            pool[which] = examples(options, which)
        inputs, targets = pool[which]
        chosen = torch.from_numpy(rng.permutation(len(inputs))[: options.batch])
        both = torch.rot90(torch.stack([inputs[chosen], targets[chosen]]), int(rng.integers(4)), (2, 3))
        both = both.flip(3) if rng.uniform() < 0.5 else both
        yield both[0, :, None], both[1, :, None]


def loss(images: Tensor, targets: Tensor) -> Tensor:
    """Mean relative squared and absolute error: large objects and small ones, faint ones and dense ones count alike."""
    error = images - targets
    squared = error.square().mean((1, 2, 3)) / targets.square().mean((1, 2, 3))
    absolute = error.abs().mean((1, 2, 3)) / targets.abs().mean((1, 2, 3))
    return (squared + 0.5 * absolute).mean()


def main(options: Options) -> None:
    """Train, save the state now and then, and write the weights."""
    torch.set_num_threads(1)
    network = UNet(UNetOptions(), torch.Generator().manual_seed(options.seed)).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), lr=options.rate, betas=(0.9, 0.99))
    step, seen, begun = 0, 0.0, time.process_time()
    if options.state.is_file():
        kept = torch.load(options.state)
        step, seen = kept["step"], kept["loss"]
        network.load_state_dict(kept["network"])
        optimiser.load_state_dict(kept["optimiser"])
    for inputs, targets in batches(options, step):
        share = step / options.steps
        optimiser.param_groups[0]["lr"] = options.rate * min(1, (step + 1) / 100) * max(0.01, 0.5 * (1 + np.cos(np.pi * share)))
        optimiser.zero_grad()
        value = loss(network(inputs), targets)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
        seen += (float(value.detach()) - seen) / min(step, 200)
        late = time.process_time() - begun > 60 * options.minutes
        if step % 200 == 0 or late or step == options.steps:
            print(f"{step:6d} of {options.steps}, loss {seen:.4f}, {time.process_time() - begun:.0f} CPU s", flush=True)
            tensors = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
            _keep(options.state, tensors | {"step": step, "loss": seen})
            save_educated(network.state_dict(), options.output)
        if late:
            return


def _keep(path: Path, state: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda target: torch.save(state, target))


if __name__ == "__main__":
    main(tyro.cli(Options))
