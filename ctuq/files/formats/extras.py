"""Libraries that only some formats need: imported when such a file is read, and told how to be had."""

import importlib
from typing import Any

from ctuq.errors import BackendError


def extra(module: str, what: str) -> Any:
    """A module of the extra "readers".

    Parameters
    ----------
    module : str
    what : str
        What needs it, such as "Zeiss .txrm"; begins the sentence of the error.

    Raises
    ------
    BackendError
        If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendError(f"{what} needs the package '{module}': pip install 'ctuq[readers]'.") from error
