"""Scans that are installed with ctuq."""

from importlib.resources import files
from pathlib import Path

from ctuq.errors import InputError


def demo_scan() -> Path:
    """The real walnut scan of ``ctuq demo``: a picture with its geometry file beside it.

    Raises
    ------
    InputError
        If it was not installed.
    """
    path = Path(str(files("ctuq") / "data" / "walnut.png"))
    if not path.is_file():
        raise InputError(f"The demo's scan '{path}' is missing; install ctuq again.")
    return path
