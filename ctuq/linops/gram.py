"""Gram matrices of tall feature matrices, accumulated in float64."""

from collections.abc import Sequence

import torch
from torch import Tensor

_COLUMNS = 4096
_ROWS = 256


def gram(a: Tensor) -> Tensor:
    """``a a^T`` in float64.

    Float32 products would make an evidence covariance indefinite once a prior variance is large against the noise
    (Cholesky fails from a ratio of about 1e6), so the features stay in float32 and blocks of columns are widened. Only the
    upper triangle of row blocks is computed.

    Parameters
    ----------
    a : Tensor, shape (m, n)
        Features of any floating dtype.

    Returns
    -------
    Tensor, float64, shape (m, m)
    """
    out = torch.zeros(len(a), len(a), dtype=torch.float64, device=a.device)
    for columns in range(0, a.shape[1], _COLUMNS):
        _add_upper(out, a[:, columns : columns + _COLUMNS].double())
    return mirrored(out)


def _add_upper(out: Tensor, a: Tensor) -> None:
    """Add ``a a^T`` to the blocks of ``out`` (m, m) on and above its diagonal; what stands below is not to be used."""
    for row in range(0, len(a), _ROWS):
        rows = slice(row, row + _ROWS)
        out[rows, row:].addmm_(a[rows], a[row:].T)


def mirrored(upper: Tensor) -> Tensor:
    """The symmetric matrix with this upper triangle."""
    return torch.triu(upper) + torch.triu(upper, 1).T


def pair_grams(taps: Tensor, basis: Tensor, pairs: Sequence[tuple[int, int]], out: Tensor) -> None:
    """Add ``U_a U_b^T`` of the features ``U = H basis`` to ``out`` for each pair (a, b), one block of filters after the other.

    Parameters
    ----------
    taps : Tensor, shape (m, filters, taps)
        Features of any floating dtype.
    basis : Tensor, float64, shape (taps, taps)
    pairs : sequence of (int, int)
    out : Tensor, float64, shape (len(pairs), m, m)
        Where a = b only the upper triangle is right.
    """
    for part in taps.split(max(1, _COLUMNS // len(basis)), dim=1):
        turned = (part.double() @ basis).movedim(-1, 0).contiguous()
        for target, (a, b) in zip(out, pairs, strict=True):
            if a == b:
                _add_upper(target, turned[a])
            else:
                target.addmm_(turned[a], turned[b].T)
