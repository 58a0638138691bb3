"""The regression sets as they lie in a folder: ``NAME/data.csv.gz`` (last column the target), ``NAME/test_mask.csv.gz``."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ctuq import CtuqError


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test data, each column of mean 0 and deviation 1 over the training data."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def names(folder: Path) -> list[str]:
    """The sets in a folder."""
    found = sorted(path.parent.name for path in folder.glob("*/data.csv.gz"))
    if not found:
        raise CtuqError(f"'{folder}' holds no NAME/data.csv.gz: give the folder with the regression sets.")
    return found


def load(folder: Path, name: str, split: int, rows: int, seed: int) -> Split:
    """One of the splits of a set; of more than ``rows`` training data a random part."""
    data = np.loadtxt(folder / name / "data.csv.gz", delimiter=",", ndmin=2)
    test = np.loadtxt(folder / name / "test_mask.csv.gz", delimiter=",", ndmin=2).astype(bool)[:, split]
    train, rest = data[~test], data[test]
    train = train[np.random.default_rng(seed).permutation(len(train))[:rows]]
    scale = train.std(0)
    scale[scale == 0] = 1.0
    inside, outside = (torch.tensor((part - train.mean(0)) / scale) for part in (train, rest))
    return Split(inside[:, :-1], inside[:, -1], outside[:, :-1], outside[:, -1])
