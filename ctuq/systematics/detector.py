"""Errors of single views and single columns: which rays each of them moves, and which of them an image can hold as well."""

import math

import torch
from torch import Tensor

_SMOOTH, _FEWEST = 16, 4


def rays_of_views(rays: Tensor, basis: Tensor | None = None) -> Tensor:
    """Columns (views * columns, k) of factors of every view's own rays (views, columns), or of a basis (views, k) of views."""
    views, columns = rays.shape
    basis = torch.eye(views, dtype=torch.float64, device=rays.device) if basis is None else basis.to(rays)
    return (rays[:, :, None] * basis[:, None]).reshape(views * columns, -1)


def of_columns(rays: Tensor, basis: Tensor) -> Tensor:
    """Columns (views * columns, k) of factors of every detector column's own rays (views, columns), by a basis (columns, k)."""
    return (rays[:, :, None] * basis.to(rays)).reshape(rays.numel(), -1)


def rough(columns: int) -> Tensor:
    """Offsets of columns without their smooth part: the faster cosines, orthonormal (columns, k).

    What is smooth along a detector makes broad rings, which an image of a round object has as well: the first cosines, a
    sixteenth of them, stay the image's.
    """
    return _cosines(columns)[:, _smooth(columns) :]


def smooth(columns: int) -> Tensor:
    """The part of offsets that `rough` leaves out, orthonormal (columns, k)."""
    return _cosines(columns)[:, : _smooth(columns)]


def _smooth(columns: int) -> int:
    return min(max(_FEWEST, columns // _SMOOTH), columns)


def _cosines(columns: int) -> Tensor:
    places = (torch.arange(columns, dtype=torch.float64) + 0.5) / columns
    waves = torch.cos(math.pi * places[:, None] * torch.arange(columns, dtype=torch.float64)) * (2 / columns) ** 0.5
    waves[:, 0] /= 2**0.5
    return waves
