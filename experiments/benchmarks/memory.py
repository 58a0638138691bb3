"""Peak memory of an EM step of a ResNet-50 against that of a training step: ``python -m experiments.benchmarks.memory``.

224 x 224 images, 1,000 classes, random weights. Most of what a sample holds are vectors of the weights' size, beside which one
image's training step has few activations: a mini-batch of 8 is nearer to how such a network is trained. Each job runs in a
process of its own, one after the other. A figure is the highest resident memory of the process during the job, as the kernel
counts it (VmHWM, set back before the job), less what the process held before it made the network and after it had run the same
job on a tiny one; so everything counts: the module, the model's copy of its weights, every vector, activations and workspaces.
The allocator gives freed blocks back at once.
"""

import argparse
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ctuq.laplace.evidence.ascent import mackay
from ctuq.laplace.evidence.sampled import expectation_of
from ctuq.laplace.priors.diagonal import isotropic
from ctuq.laplace.system.descent import SampleLoss, judged
from ctuq.laplace.system.mode import mode_of_whitened
from ctuq.laplace.system.problem import Point, System
from ctuq.laplace.system.sampling import Draws
from ctuq.laplace.system.solver_choice import problem_of
from ctuq.laplace.tangent.likelihoods import Categorical
from ctuq.laplace.tangent.model import LinearModel, linearise
from ctuq.linops.stochastic import descend

MIB = 2**20
CHILD = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        sizes = [(channels, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]
        self.parts = nn.ModuleList(convolution(*size) for size in sizes)
        plain = stride == 1 and channels == 4 * width
        self.shortcut = nn.Identity() if plain else convolution(channels, 4 * width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for part in self.parts[:-1]:
            y = nn.functional.relu(part(y))
        return nn.functional.relu(self.parts[-1](y) + self.shortcut(x))


def convolution(before: int, after: int, size: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, size, stride, size // 2, bias=False), nn.BatchNorm2d(after))


def resnet(depths: tuple[int, ...], width: int, classes: int) -> nn.Module:
    layers = [convolution(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = width
    for stage, depth in enumerate(depths):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            layers.append(Bottleneck(channels, width * 2**stage, stride))
            channels = 4 * width * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


@dataclass(frozen=True)
class Size:
    """Of a network and its images."""

    depths: tuple[int, ...]
    width: int
    pixels: int
    classes: int


TINY, RESNET50 = Size((1, 1), 4, 32, 10), Size((3, 4, 6, 3), 64, 224, 1000)


def problem(size: Size, images: int) -> tuple[nn.Module, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = resnet(size.depths, size.width, size.classes)
    inputs = torch.randn(images, 3, size.pixels, size.pixels, generator=rng)
    return network, inputs, torch.randint(size.classes, (images,), generator=rng)


def training(size: Size, images: int, momentum: float, record: Callable[[str], None]) -> None:
    network, inputs, labels = problem(size, images)
    optimiser = torch.optim.SGD(network.parameters(), 1e-3, momentum)
    for _ in range(2):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network.train()(inputs), labels).backward()
        optimiser.step()
    record("training step")


def linear_model(size: Size, images: int) -> tuple[LinearModel, Tensor]:
    network, inputs, labels = problem(size, images)
    return linearise(network.eval(), inputs, likelihood=Categorical()), labels


def products(size: Size, images: int, samples: int, record: Callable[[str], None]) -> None:
    """What a step of EM is made of, for all samples at once."""
    model, labels = linear_model(size, images)
    prior, curvature, rng = isotropic(model), model.gauss_newton(), torch.Generator().manual_seed(1)
    psi = prior.start()
    record("tangent model made")
    theta = prior.root(model.features.domain.randn(samples, rng=rng), psi)
    outputs = model.constant + model.jacobian(theta[:1])[0].double()
    gradient = model.jacobian.T(model.likelihood.gradient(outputs, labels).to(theta)[None])
    gradient += prior.precision(theta[:1], psi)
    record("gradient of the mode")
    del outputs, gradient
    curvature(theta)
    record("J, curvature, J^T")
    gradient = curvature(theta)
    gradient += prior.precision(theta, psi)
    record("the same and the prior")


def update(size: Size, images: int, samples: int, record: Callable[[str], None]) -> None:
    """A step of EM by stochastic gradients: draws, two of the sampler's updates, effective dimension, new hyperparameters."""
    model, labels = linear_model(size, images)
    prior, rng = isotropic(model), torch.Generator().manual_seed(1)
    whole = problem_of(model, labels, samples)
    system = System(whole, prior, Point(prior.start(), whole.sigma2))
    draws = Draws.of(whole, samples, rng=rng)
    loss = SampleLoss(system, draws, with_mode=False)
    record("draws made")
    index = torch.arange(images)
    z = descend(loss.gradient, loss.start, iter([index, index]), [1e-6, 1e-6], 0.9)
    record("sampler's update")
    del loss
    found = judged(system, draws, z, 2, math.inf)
    del z
    mode = mode_of_whitened(system, torch.zeros_like(model.weights))
    mackay(prior, expectation_of(system, found, mode))
    record("effective dimension")


class Gauge:
    """Prints the highest resident memory since the last reading, in MiB above what there was when it was made."""

    def __init__(self):
        self._before = self._reset()

    def __call__(self, label: str) -> None:
        print(f"{label}:{(status('VmHWM') - self._before) / MIB:.1f}", flush=True)
        self._reset()

    @staticmethod
    def _reset() -> int:
        Path("/proc/self/clear_refs").write_text("5")
        return status("VmRSS")


def status(name: str) -> int:
    """A field of the process's status, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


JOBS = {
    "plain": lambda size, images, _, record: training(size, images, 0.0, record),
    "momentum": lambda size, images, _, record: training(size, images, 0.9, record),
    "products": products,
    "update": update,
}


def peaks(job: str, width: int, images: int, samples: int = 1) -> dict[str, float]:
    """Peaks of a job in a new process, MiB."""
    command = [sys.executable, "-m", "experiments.benchmarks.memory", "--job", job, "--width", str(width)]
    done = subprocess.run(
        [*command, "--images", str(images), "--samples", str(samples)],
        env={**os.environ, **CHILD},
        capture_output=True,
        text=True,
        check=True,
    )
    return {label: float(value) for label, value in (line.split(":") for line in done.stdout.splitlines())}


def report(width: int, images: int, counts: list[int]) -> None:
    plain, momentum = (peaks(job, width, images)["training step"] for job in ("plain", "momentum"))
    print(
        f"ResNet-50 of width {width}, {images} images: training step {plain:.0f} MiB by SGD, {momentum:.0f} MiB with momentum"
    )
    print(f"{'MiB; over samples and training steps':40s}{'samples':>8s}{'MiB':>8s}{'SGD':>8s}{'momentum':>10s}")
    for job in ("products", "update"):
        for samples in counts:
            for label, value in peaks(job, width, images, samples).items():
                each = value / samples
                print(f"{label:40s}{samples:8d}{value:8.0f}{each / plain:8.2f}{each / momentum:10.2f}", flush=True)
    print(f"{'to reach: EM step; one update':40s}{'':16s}{'3; 1.5':>8s}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 8], help="in a mini-batch")
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--width", type=int, default=RESNET50.width, help="channels; fewer only try the script")
    parser.add_argument("--job", choices=JOBS)
    options = parser.parse_args()
    if options.job is None:
        for images in options.images:
            report(options.width, images, options.samples)
        return
    JOBS[options.job](TINY, options.images[0], options.samples[0], lambda label: None)
    JOBS[options.job](replace(RESNET50, width=options.width), options.images[0], options.samples[0], Gauge())


if __name__ == "__main__":
    main()
