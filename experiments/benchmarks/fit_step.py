"""A step of the fit: plain filters, channels-last as ctuq fits, and each compiled by `torch.compile`.

``python -m experiments.benchmarks.fit_step`` takes the ways in turn, one thread, the least CPU seconds of each;
``figures/fit_step.csv``. Where no compiler is at hand the compiled rows are left out, and said so.
"""

import csv
import time

import torch
import tyro
from torch import Tensor, nn

from ctuq.recon.unet import UNet, UNetOptions
from experiments import FIGURES

_LAYOUTS = {"plain": torch.contiguous_format, "channels-last": torch.channels_last}


def step_of(network: nn.Module, optimiser: torch.optim.Optimizer, image: Tensor) -> float:
    """CPU seconds of one step: the image, its gradient, and Adam."""
    begun = time.process_time()
    optimiser.zero_grad()
    network(image).square().sum().backward()
    optimiser.step()
    return time.process_time() - begun


def measure(size: int, steps: int) -> list[dict[str, float | str]]:
    """A row for each way."""
    rows = []
    for layout, memory_format in _LAYOUTS.items():
        for compiled in (False, True):
            torch.compiler.reset()
            rng = torch.Generator().manual_seed(0)
            network: nn.Module = UNet(UNetOptions(), rng).to(memory_format=memory_format)  # pyright: ignore[reportCallIssue]
            optimiser = torch.optim.Adam(network.parameters(), 1e-4)
            image = torch.randn(1, 1, size, size, generator=rng)
            # Shapes that may change end in an error of the compiler here, and a fit has one.
            run = torch.compile(network, dynamic=False) if compiled else network
            begun = time.perf_counter()
            try:
                step_of(run, optimiser, image)
            except Exception as error:  # whatever a machine lacks
                print(f"{size}, {layout}, compiled: left out, {type(error).__name__}", flush=True)
                continue
            first = time.perf_counter() - begun
            seconds = min(step_of(run, optimiser, image) for _ in range(steps))
            row = {"size": size, "layout": layout, "compiled": compiled, "step_cpu_seconds": seconds, "first_seconds": first}
            rows.append(row)
            print(
                f"{size}, {layout}{', compiled' if compiled else ''}: {1e3 * seconds:.1f} ms, first {first:.1f} s", flush=True
            )
    return rows


def main(sizes: tuple[int, ...] = (64, 128, 256), steps: int = 10) -> None:
    """Measure all ways and record them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = [row for size in sizes for row in measure(size, steps)]
    with (FIGURES / "fit_step.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    torch.set_num_threads(threads)


if __name__ == "__main__":
    tyro.cli(main)
