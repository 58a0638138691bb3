"""Locks between processes that work on one file or folder; a process that was killed leaves none behind.

The system's own lock (flock) ends with its process. Where a network folder has none, the name of the process in the lock file
counts: one of this machine that runs no more is passed over; of one on another machine only the user can know.
"""

import errno
import logging
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ctuq.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: one process at a time is then up to the user.
    fcntl = None

_HELD = (errno.EAGAIN, errno.EACCES)
_log = logging.getLogger(__name__)


class BusyError(InputError):
    """Another process holds a lock."""


@contextmanager
def locked(path: str | os.PathLike, what: str, *, busy: str = "", tidy: bool = False) -> Iterator[None]:
    """Hold the lock ``.NAME.what`` beside a file or folder, which need not be opened for it.

    Parameters
    ----------
    path : path
    what : str
        Name of the lock; locks of other names are independent.
    busy : str
        What to tell when another process holds it; without it, wait.
    tidy : bool
        Remove the lock's file at the end.

    Raises
    ------
    BusyError
        If another process holds the lock and ``busy`` is given.
    InputError
        If the folder cannot be written to, or has no locks and a process on another machine left its name there.
    """
    path = Path(path)
    place = path.with_name(f".{path.name}.{what}")
    with _held(path, place, busy) as file:
        if fcntl is None or not _has_locks(file):
            _refuse_running(file, place, busy)
        _sign(file, f"{os.getpid()} {platform.node()}")
        try:
            yield
        finally:
            _sign(file, "")
            if tidy:
                with suppress(OSError):
                    place.unlink(missing_ok=True)


def _held(path: Path, place: Path, busy: str) -> BinaryIO:
    """The lock's file, locked; opened again where its holder has removed it meanwhile."""
    while True:
        try:
            file = place.open("a+b")
        except OSError as error:
            told = f"Cannot write beside '{path}' ({(error.strerror or str(error)).lower()}); choose a folder that is writable."
            raise InputError(told) from error
        if not _taken(file, wait=not busy):
            file.close()
            raise BusyError(busy)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()


def remove_partial(*folders: Path) -> None:
    """Remove the half-written files that killed processes left in folders, and nothing in those within; locks must be held.

    A run's folder may be someone's home, where files of other programs end in ``.partial`` too.
    """
    for left in (path for folder in folders for path in folder.glob(".*.partial")):
        if re.fullmatch(r"\..+\.\d+\.partial", left.name):
            with suppress(OSError):
                left.unlink(missing_ok=True)


def is_running(pid: int) -> bool:
    """Whether there is a process of this number on this machine; True where that cannot be asked."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _taken(file: BinaryIO, *, wait: bool) -> bool:
    """Whether the system's lock is ours, or there is no such thing here."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        return error.errno not in _HELD
    return True


def _has_locks(file: BinaryIO) -> bool:
    """Whether the file's system knows locks; the one that is held is taken again, which changes nothing."""
    assert fcntl is not None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _refuse_running(file: BinaryIO, place: Path, busy: str) -> None:
    """Without the system's lock: whoever signed the file and may be at work still is not disturbed."""
    _log.info("The folder '%s' has no file locks: the process that is named in '%s' counts.", place.parent, place.name)
    file.seek(0)
    pid, _, machine = file.read().decode(errors="replace").partition(" ")
    if not pid.isdecimal() or int(pid) == os.getpid():
        return
    if machine != platform.node():
        raise BusyError(
            f"Process {pid} on {machine} has been at work in '{place.parent}', which has no file locks; if it is gone, remove "
            f"'{place}'."
        )
    if is_running(int(pid)):
        raise BusyError(busy or f"Process {pid} is at work in '{place.parent}'; wait until it is done.")


def _sign(file: BinaryIO, text: str) -> None:
    """Write who holds the lock; a full disk hinders nobody."""
    with suppress(OSError):
        file.truncate(0)
        file.write(text.encode())
        file.flush()
