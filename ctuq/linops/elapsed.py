"""How long work takes, the GPU's included."""

import time
from collections.abc import Callable

import torch


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call; what it has given a GPU to do is waited for, as launching it takes next to nothing."""
    _wait()
    begun = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - begun


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
