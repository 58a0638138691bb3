"""Small labelled images: scikit-learn's digits, MNIST's test set, CIFAR-10 in its binary version; and rotated ones.

MNIST is a folder with ``*images-idx3-ubyte.gz`` and ``*labels-idx1-ubyte.gz``; CIFAR-10 one with ``data_batch_*.bin`` and
``test_batch.bin`` (the binary version, since pickles of others are not to be trusted).
"""

import gzip
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_RECORD = 1 + 3 * 32 * 32


@dataclass(frozen=True, eq=False)
class Images:
    """Images (n, channels, h, w) of pixels from 0 to 1, and their classes (n,)."""

    name: str
    x: Tensor
    y: Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Data to train on, to choose a precision with, and to test on; pixels as they are."""

    name: str
    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def load(folder: Path | None) -> Images:
    """What lies in a folder, or scikit-learn's digits of 8 x 8 pixels if None."""
    if folder is None:
        from sklearn.datasets import load_digits

        found = load_digits()
        return Images("digits", torch.tensor(found.images / 16).float()[:, None], torch.tensor(found.target).long())
    if batches := sorted(folder.glob("*_batch*.bin")):
        records = np.concatenate([np.fromfile(path, dtype=np.uint8).reshape(-1, _RECORD) for path in batches])
        pixels = records[:, 1:].reshape(-1, 3, 32, 32)
        return Images("cifar10", torch.from_numpy(pixels / np.float32(255)), torch.from_numpy(records[:, 0].astype(np.int64)))
    paths = [sorted(folder.glob(f"*{part}-ubyte.gz")) for part in ("images-idx3", "labels-idx1")]
    pixels, labels = (np.concatenate([_idx(path) for path in part]) for part in paths)
    return Images("mnist", torch.from_numpy(pixels[:, None] / np.float32(255)), torch.from_numpy(labels.astype(np.int64)))


def _idx(path: Path) -> np.ndarray:
    data = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def halved(images: Images) -> Images:
    """Mean over squares of 2 x 2 pixels."""
    return Images(f"{images.name}_half", torch.nn.functional.avg_pool2d(images.x, 2), images.y)


def padded(images: Images, size: int) -> Images:
    """Zeros around, to so many pixels on a side."""
    more = size - images.x.shape[-1]
    before = more // 2
    return Images(images.name, torch.nn.functional.pad(images.x, (before, more - before) * 2), images.y)


def split(images: Images, train: int, held_out: int, test: int, *, rng: torch.Generator) -> Split:
    """Disjoint random parts; the test set is as large as it can be, up to ``test``."""
    order = torch.randperm(len(images.x), generator=rng)
    parts = order.split([train, held_out, len(order) - train - held_out])
    chosen = [part[:most] for part, most in zip(parts, (train, held_out, test), strict=True)]
    first, second, third = ((images.x[part], images.y[part]) for part in chosen)
    return Split(images.name, first, second, third)


def rotated(x: Tensor, degrees: float) -> Tensor:
    """Images turned about their centres by bilinear interpolation; zeros come in at the corners."""
    a = math.radians(degrees)
    matrix = torch.tensor([[math.cos(a), -math.sin(a), 0.0], [math.sin(a), math.cos(a), 0.0]]).expand(len(x), 2, 3)
    grid = torch.nn.functional.affine_grid(matrix, list(x.shape), align_corners=False)
    return torch.nn.functional.grid_sample(x, grid, align_corners=False)
