"""How many threads the work at hand is quickest with: on a machine whose other processors are busy, more can be slower."""

import logging
import os
from collections.abc import Callable
from statistics import median

import torch

from ctuq.linops.elapsed import seconds_of

_ROUNDS, _WORTH = 3, 0.9
_log = logging.getLogger(__name__)


def begin_with(wanted: int | None) -> None:
    """Set torch's number of threads where one is asked for; by 0, the network's fit measures it later (`take_threads`)."""
    if wanted:
        torch.set_num_threads(wanted)


def take_threads(wanted: int | None, step: Callable[[], object], kept: int | None = None) -> int:
    """Set torch's number of threads, and return it.

    Parameters
    ----------
    wanted : int, optional
        0 measures; None leaves things as they are.
    step : callable
        A step of the work, timed with one thread and with all.
    kept : int, optional
        What the work was begun with: sums are split among threads, so only the same number gives the same digits.
    """
    number = kept or (quickest(step) if wanted == 0 else wanted)
    if number is not None and number != torch.get_num_threads():
        torch.set_num_threads(number)
    return torch.get_num_threads()


def quickest(step: Callable[[], object]) -> int:
    """One thread or all of them: all if their median step takes less than nine tenths of the time of one."""
    every = max(torch.get_num_threads(), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    if every == 1:
        return 1
    seconds: dict[int, list[float]] = {1: [], every: []}
    for _ in range(_ROUNDS):
        for number, times in seconds.items():
            torch.set_num_threads(number)
            times.append(seconds_of(step))
    one, all_of_them = (median(times) for times in seconds.values())
    _log.info("A step takes %.0f ms with one thread and %.0f ms with %d.", 1e3 * one, 1e3 * all_of_them, every)
    return every if all_of_them < _WORTH * one else 1
