"""The shipped weights of the default network, trained on simulated scans by ``experiments/pretrain.py``."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ctuq.records import write_whole

_EDUCATED = "educated.npz"


def educated_weights() -> dict[str, Tensor] | None:
    """Weights of ``UNet(UNetOptions())`` by name, float32; None if they were not installed."""
    path = Path(str(files("ctuq") / "data" / _EDUCATED))
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        return {name: torch.from_numpy(stored[name].astype(np.float32)) for name in stored.files}


def save_educated(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write weights as float16: rounding them moves the image by less than a hundredth of a fit's first step."""
    arrays = {name: value.detach().cpu().numpy().astype(np.float16) for name, value in weights.items()}
    write_whole(path, lambda target: np.savez_compressed(target, allow_pickle=False, **arrays))
