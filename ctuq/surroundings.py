"""Long work as in a process of its own: how a notebook lets NumPy and PyTorch compute stays out of it, and as it is."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch

_CPU = torch.device("cpu")


class _Shared:
    """What all threads share: default dtype, global generator, number of threads; given back when the last work is done."""

    def __init__(self):
        self._lock, self._works = threading.Lock(), 0
        self._before = torch.float32, torch.empty(0), 1

    def take(self) -> None:
        """A work begins."""
        with self._lock:
            if not self._works:
                self._before = torch.get_default_dtype(), torch.get_rng_state(), torch.get_num_threads()
                torch.set_default_dtype(torch.float32)
            self._works += 1

    def give_back(self) -> None:
        """A work ends."""
        with self._lock:
            self._works -= 1
            if not self._works:
                torch.set_default_dtype(self._before[0])
                torch.set_rng_state(self._before[1])
                if torch.get_num_threads() != self._before[2]:
                    torch.set_num_threads(self._before[2])


_shared = _Shared()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Compute inside, and in what is decorated, as in a new process, and leave the caller's settings and random numbers alone.

    Of a caller it ignores ``torch.no_grad``, ``torch.inference_mode``, ``torch.autocast``, the default dtype and device, and
    what ``numpy.seterr`` raises; it gives back the number of threads, and the state of PyTorch's global generator, which
    making a network draws from.
    """
    # The mode of a default device costs each call of PyTorch microseconds, so only a device that was set is set back.
    device = nullcontext() if torch.get_default_device() == _CPU else _CPU
    with (
        np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"),
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
        device,
    ):
        _shared.take()
        try:
            yield
        finally:
            _shared.give_back()
