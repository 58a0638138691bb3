"""Cost of one row of Jacobian products of the default U-Net, in forward passes: ``python -m experiments.benchmarks.jacobian``.

For each instruction set (AVX2 is imitated by telling oneDNN, MKL and torch), size and direction: the rules of ``ctuq`` and
``vmap`` of ``torch.func`` at several numbers of rows, timed in turn on one thread, each the smallest CPU time over the rounds.
A row has one product with activations and one with weights for each convolution but the first. The bound is the time that
these take at the speed of a large matrix product. Writes ``figures/jacobian.csv``.
"""

import csv
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import tyro
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ctuq.linops.jacobian.network import Jacobian, ProductChoice, jacobian_of
from ctuq.linops.memory import keep_freed_memory
from ctuq.linops.operator import LinearOperator
from ctuq.recon.unet import UNet, UNetOptions
from experiments import FIGURES

SETS = {
    "default": {},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}
ROWS = {
    "tape": {64: (2, 16), 128: (2, 8), 256: (1, 8), 512: (1, 3)},
    "func": {64: (4, 8), 128: (1, 4), 256: (1,), 512: (1,)},
}
FIELDS = ("set", "size", "direction", "forward_ms", "bound", "ctuq", "ctuq_rows", "torch_func", "torch_func_rows", "peak_mib")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    sizes: tuple[int, ...] = (64, 128, 256, 512)
    rounds: int = 3
    groups: int = 0
    """Of the U-Net's group normalisation."""
    kept: bool = True
    """Reuse freed memory, as the command does."""
    inside: str = ""
    """The instruction set that this process has been started with."""


def main(options: Options) -> None:
    if options.inside:
        for size in options.sizes:
            for row in measure(options, size):
                print(*row, flush=True)
        return
    print("".join(f"{name:>16s}" for name in FIELDS))
    with (FIGURES / "jacobian.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(FIELDS)
        for name, variables in SETS.items():
            for size in options.sizes:  # a process for each, or one's peak would be the next one's
                row = ["--sizes", str(size), "--rounds", str(options.rounds), "--groups", str(options.groups)]
                command = [sys.executable, "-m", "experiments.benchmarks.jacobian", *row, "--inside", name]
                command.append("--kept" if options.kept else "--no-kept")
                done = subprocess.run(command, env=os.environ | variables, stdout=subprocess.PIPE, text=True, check=True)
                for line in done.stdout.splitlines():
                    print("".join(f"{value:>16s}" for value in line.split()), flush=True)
                    table.writerow(line.split())


@torch.no_grad()
def measure(options: Options, size: int) -> list[tuple]:
    torch.set_num_threads(1)
    if options.kept:
        keep_freed_memory()
    network = UNet(UNetOptions(groups=options.groups), torch.Generator().manual_seed(0)).requires_grad_(False)
    rng = torch.Generator().manual_seed(1)
    image = torch.randn(1, 1, size, size, generator=rng)
    J = jacobian_of(network, image)[1]
    jobs: dict[tuple, Callable[[], object]] = {("F", "", 1): lambda: network(image)}
    for method, rows in ROWS.items():
        for k in rows[size]:
            jobs["VJP", method, k] = partial(product, J, J.T, J.range.randn(k, rng=rng), method)
            jobs["JVP", method, k] = partial(product, J, J, J.domain.randn(k, rng=rng), method)
        if method == "tape":
            smallest(jobs, 1)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    smallest(jobs, 1)
    best = smallest(jobs, options.rounds)
    forward = best.pop(("F", "", 1))
    lines = []
    for way in ("VJP", "JVP"):
        ratio = {key[1:]: seconds / key[2] / forward for key, seconds in best.items() if key[0] == way}
        first, second = (min((r, k) for (m, k), r in ratio.items() if m == method) for method in ROWS)
        bound = flops(jobs[way, "tape", ROWS["tape"][size][-1]]) / ROWS["tape"][size][-1] / speed() / forward
        figures = (f"{1e3 * forward:.1f}", f"{bound:.2f}", f"{first[0]:.2f}", first[1], f"{second[0]:.2f}", second[1], peak)
        lines.append((options.inside, size, way, *figures))
    return lines


def product(J: Jacobian, operator: LinearOperator, rows: Tensor, method: str) -> Tensor:
    J.choice = ProductChoice(vjp=method, jvp=method, vjp_rows=len(rows), jvp_rows=len(rows))
    return operator(rows)


def smallest(jobs: dict[tuple, Callable[[], object]], rounds: int) -> dict[tuple, float]:
    """Seconds of each job, its smallest over rounds in which all take turns."""
    times: dict[tuple, list[float]] = {label: [] for label in jobs}
    for _ in range(rounds):
        for label, job in jobs.items():
            for _ in range(3 if label[0] == "F" else 1):
                start = time.thread_time()
                job()
                times[label].append(time.thread_time() - start)
    return {label: min(values) for label, values in times.items()}


def speed() -> float:
    """Operations a second of a large matrix product."""
    a = torch.ones(1024, 1024)
    return 2 * 1024**3 / min(smallest({("product", i): lambda: a @ a for i in range(9)}, 1).values())


def flops(job: Callable[[], object]) -> int:
    def product(_out: torch.Size, left: torch.Size, right: torch.Size, **_) -> int:
        return 2 * left.numel() * right[-1]

    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.baddbmm_: product}) as counter:
        job()
    return counter.get_total_flops()


if __name__ == "__main__":
    main(tyro.cli(Options))
