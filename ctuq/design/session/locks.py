"""Locks between processes that work on one session; a killed process leaves none behind."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctuq.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: one process at a time is then up to the user.
    fcntl = None


class BusyError(InputError):
    """Another process holds a lock."""


@contextmanager
def locked(path: str | os.PathLike, what: str, *, busy: str = "") -> Iterator[None]:
    """Hold the lock ``.NAME.what`` beside a file, which need not be opened for it.

    Parameters
    ----------
    path : path
    what : str
        Name of the lock; locks of other names are independent.
    busy : str
        What to tell when another process holds it; without it, wait.

    Raises
    ------
    BusyError
        If another process holds the lock and ``busy`` is given.
    InputError
        If the folder cannot be written to.
    """
    path = Path(path)
    try:
        file = path.with_name(f".{path.name}.{what}").open("ab")
    except OSError as error:
        raise InputError(
            f"Cannot write beside '{path}' ({error.strerror}); sessions need a folder that is writable."
        ) from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
            except BlockingIOError:
                raise BusyError(busy) from None
        yield
