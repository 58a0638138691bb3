"""How much memory is left, refusing work that does not fit before it starts, and reusing what was freed."""

import ctypes
import sys
import warnings
from collections.abc import Callable

import torch

from ctuq.errors import ResourceError
from ctuq.memory import free_memory

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's parameters for mallopt."""
_KEPT, _MAPPED = 2**30, 2**27
"""Larger values are still mapped each time: kept too, they leave gaps as large as themselves."""


def keep_freed_memory() -> bool:
    """Let this process reuse the memory it frees, instead of giving it back at once; for a program to call first.

    That is up to 1 GiB of values below 128 MiB each. By default glibc maps each value above 32 MiB anew, and the system clears
    its pages one by one when they are first written: products with a Jacobian of 256^2 pixels, four rows at once, then take
    1.3 times as long. What is kept adds to the peak: 1.3 to 1.4 GiB instead of 1.0 for products of 512^2 pixels.

    Returns
    -------
    bool
        Whether the C library could be told: it could on Linux with glibc 2.35 or newer.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, _MAPPED)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))


def available_memory(device: torch.device | str = "cpu") -> int | None:
    """Bytes that can still be allocated on a device; None where the system does not say."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()


def require_memory(needed: float, what: str, advice: str, device: torch.device | str = "cpu") -> None:
    """Refuse work that needs more bytes than are available.

    Raises
    ------
    ResourceError
        Naming the work, both sizes and the advice.
    """
    left = available_memory(device)
    if left is not None and needed > left:
        raise ResourceError(
            f"{what} needs about {needed / 2**30:.1f} GiB on {device}, and {left / 2**30:.1f} GiB are available; {advice}."
        )


def in_parts(count: int, size: int, work: Callable[[slice], None]) -> int:
    """Do work on ``count`` rows, so many at once; on half as many where the device has no memory left, and say so.

    Parameters
    ----------
    count, size : int
    work : callable
        Does a slice of the rows; after `torch.OutOfMemoryError` it is called again with a part of that slice.

    Returns
    -------
    int
        Rows at once in the end.

    Raises
    ------
    torch.OutOfMemoryError
        If not even one row fits.
    """
    start = 0
    while start < count:
        stop = min(start + size, count)
        try:
            work(slice(start, stop))
        except torch.OutOfMemoryError:
            if stop - start == 1:
                raise
            size = (stop - start) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            warnings.warn(
                f"The device has no memory left for {stop - start} rows at once: going on with {size}, which is slower.",
                stacklevel=2,
            )
        else:
            start = stop
    return size
