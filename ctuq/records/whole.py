"""Files that appear under their name only when they are complete."""

import errno
import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ctuq.errors import InputError, ResourceError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
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


def _unwritable(path: Path, error: OSError) -> InputError | ResourceError:
    if error.errno in _NO_SPACE:
        return ResourceError(f"The disk has no room for '{path}'; free some space or choose another folder.")
    reason = error.strerror or str(error)
    return InputError(f"Cannot write '{path}' ({reason}); choose a folder that exists and that you may write to.")
