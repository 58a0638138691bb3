"""Work in a child process that is killed with SIGKILL at a chosen point."""

import io
import os
import signal
import time
from collections.abc import Callable


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


_LONGEST = 600.0
"""Seconds: a child of a process that had many threads once spun in MKL's own list of memory by threads, for ever."""


def killed(work: Callable[[], object]) -> bool:
    """Run ``work`` in a child; whether it died of SIGKILL."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(7)
    status = _ended(child)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _ended(child: int) -> int:
    """How a child ended; one that does not is ended."""
    last = time.monotonic() + _LONGEST
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > last:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"The child has not ended in {_LONGEST:g} s.")
        time.sleep(0.02)
    return found[1]


def at_call(owner: object, name: str, number: int = 1) -> None:
    """From now on, die when a function is called for the ``number``-th time."""
    called, original = [], getattr(owner, name)

    def function(*arguments, **named):
        called.append(0)
        return die() if len(called) == number else original(*arguments, **named)

    setattr(owner, name, function)


def half_written(owner: object, number: int = 1, name: str = "write_whole") -> None:
    """From now on, die when half of the ``number``-th file is on the disk."""
    called, original = [], getattr(owner, name)

    def write_whole(path, fill):
        called.append(0)
        if len(called) < number:
            return original(path, fill)

        def half(target):
            whole = io.BytesIO()
            fill(whole)
            target.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            target.flush()
            die()

        return original(path, half)

    setattr(owner, name, write_whole)
