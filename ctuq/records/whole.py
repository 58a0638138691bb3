"""Files that appear under their name only when they are complete."""

import errno
import glob
import io
import os
import platform
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ctuq.errors import InputError, ResourceError
from ctuq.locks import is_running

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SHORT = re.compile(r"\d+ requested and \d+ written")


def write_whole(path: str | os.PathLike, fill: Callable[[io.BufferedRandom], object]) -> None:
    """Let ``fill`` write to a temporary file beside ``path``, and rename it when that has succeeded.

    Raises
    ------
    InputError
        If the folder cannot be written to.
    ResourceError
        If the disk is full.
    """
    path = Path(path)
    if not path.name:
        raise InputError(f"'{path}' is a folder; name the file to write.")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"'{path}' is a device, pipe or socket, which would be replaced by a file; name a file to write.")
    begin = f".{path.name}.{_machine()}."
    partial = path.with_name(f"{begin}{threading.get_native_id()}.{os.getpid()}.partial")
    _clear_away(path.parent, begin)
    try:
        with partial.open("w+b") as target:
            fill(target)
            target.flush()
            os.fsync(target.fileno())
        partial.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _machine() -> str:
    """The name of this machine, as a file's name may have it."""
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:32]


def _clear_away(folder: Path, begin: str) -> None:
    """Remove what processes of this machine that were killed left half written; of other machines only the user can know."""
    with suppress(OSError):
        for left in folder.glob(f"{glob.escape(begin)}*.partial"):
            process = left.name[: -len(".partial")].rpartition(".")[2]
            if process.isdecimal() and not is_running(int(process)):
                left.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> InputError | ResourceError:
    # NumPy tells a short write without a number: "1024 requested and 904 written".
    if error.errno in _NO_SPACE or (error.errno is None and _SHORT.search(str(error))):
        return ResourceError(f"The disk has no room for '{path}'; free some space or choose another folder.")
    reason = error.strerror or str(error)
    return InputError(f"Cannot write '{path}' ({reason}); choose a folder that exists and that you may write to.")
