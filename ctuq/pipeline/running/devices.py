"""What a run computes on."""

import torch

from ctuq.errors import BackendError, InputError


def device_of(name: str) -> torch.device:
    """The device of this name; "auto" is a GPU if there is one.

    Raises
    ------
    InputError
        If ctuq cannot compute on such a device.
    BackendError
        If this machine has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        # Others that torch knows lack float64, sparse matrices, or (meta) values.
        raise InputError(f"ctuq cannot compute on a device {name!r}; use 'auto', 'cpu', 'cuda' or 'cuda:N'.")
    if device.type == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise BackendError(f"The device {name!r} was asked for, and PyTorch finds no GPU; use --device cpu.")
    if device.index is not None and device.index >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise BackendError(f"The device {name!r} was asked for, and the last GPU here is cuda:{last}.")
    return device
