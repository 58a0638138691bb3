"""Cost of one row of Jacobian products of the U-Net, in forward passes: ``python -m experiments.benchmarks.jacobian``.

Naive rows are ``vmap`` of ``torch.func``. All are timed in turn in one run, each figure is its smallest over the rounds: CPU
time for one thread, so that other programs disturb less, and wall time for more. A row has one product with activations and
one with weights for each convolution but the first, so its arithmetic is just under two forward passes.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call, jvp, linearize, vjp, vmap
from torch.utils.flop_counter import FlopCounterMode

from ctuq.linops.jacobian.network import Jacobian, linearise, weight_names
from ctuq.recon.unet import UNet, UNetOptions

ROWS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    variants = {
        "default U-Net": UNetOptions(),
        "4 scales, group norm": UNetOptions(channels=(32, 32, 32, 32), skips=(4, 4, 4), groups=4),
    }
    for name, layout in variants.items():
        network = UNet(layout, torch.Generator().manual_seed(0)).requires_grad_(False)
        for threads in options.threads:
            torch.set_num_threads(threads)
            report(f"{name}, {options.size}^2, {threads} thread(s)", network, options.size, options.rounds)


@torch.no_grad()
def report(title: str, network: UNet, size: int, rounds: int) -> None:
    rng = torch.Generator().manual_seed(1)
    image = torch.randn(1, 1, size, size, generator=rng)
    _, J = linearise(network, image)
    u, v = J.range.randn(ROWS, rng=rng), J.domain.randn(ROWS, rng=rng)
    jobs: dict[str, Callable[[], object]] = {"forward": lambda: network(image)}
    jobs |= naive(network, image, J, u, v) | {"VJP ctuq": lambda: J.T(u), "JVP ctuq": lambda: J(v)}
    best = smallest(jobs, rounds)
    forward = best.pop("forward") * ROWS
    print(
        f"\n{title}: {J.domain.size} weights, forward {1e3 * forward / ROWS:.1f} ms, {flops(jobs['forward']) / 1e9:.2f} GFLOP"
    )
    print(f"{'row of':34s}{'VJP / F':>10s}{'JVP / F':>10s}")
    for label in dict.fromkeys(key[4:] for key in best):
        print(f"{label:34s}" + "".join(f"{best.get(way + label, float('nan')) / forward:10.2f}" for way in ("VJP ", "JVP ")))
    work = [flops(job) / ROWS / flops(jobs["forward"]) for job in (lambda: J.T(u), lambda: J(v))]
    print(f"{'arithmetic of ctuq':34s}{work[0]:10.2f}{work[1]:10.2f}\n{'to reach; limit':34s}{'2.50; 2':>10s}{'2.50; 2':>10s}")


def naive(network: UNet, image: Tensor, J: Jacobian, u: Tensor, v: Tensor) -> dict[str, Callable[[], object]]:
    values = dict(network.named_parameters())
    chosen = {name: values[name] for name in weight_names(network)}
    tangents = {block.name: v[:, block.slice].reshape(-1, *block.shape) for block in J.blocks}

    def function(weights: dict[str, Tensor]) -> Tensor:
        return functional_call(network, {**values, **weights}, (image,))[0, 0]

    pull, push = vjp(function, chosen)[1], linearize(function, chosen)[1]
    jobs: dict[str, Callable[[], object]] = {}
    for chunk in (1, 4, 8):
        jobs[f"VJP naive vmap, {chunk} rows"] = lambda c=chunk: vmap(pull, chunk_size=c)(u)
        jobs[f"JVP naive vmap, {chunk} rows"] = lambda c=chunk: vmap(lambda t: jvp(function, (chosen,), (t,))[1], chunk_size=c)(
            tangents
        )
        jobs[f"JVP vmap of linearize, {chunk} rows"] = lambda c=chunk: vmap(push, chunk_size=c)(tangents)
    return jobs


def smallest(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each job, its smallest over rounds in which all take turns."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {label: [] for label in jobs}
    for _ in range(rounds + 1):
        for label, job in jobs.items():
            for _ in range(3 if label == "forward" else 1):
                start = clock()
                job()
                times[label].append(clock() - start)
    return {label: min(values) for label, values in times.items()}


def flops(job: Callable[[], object]) -> int:
    def product(_out: torch.Size, left: torch.Size, right: torch.Size, **_) -> int:
        return 2 * left.numel() * right[-1]

    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.baddbmm_: product}) as counter:
        job()
    return counter.get_total_flops()


if __name__ == "__main__":
    main()
