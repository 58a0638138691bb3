"""Gram matrices of tall feature matrices, accumulated in float64."""

import torch
from torch import Tensor

_COLUMNS = 4096
_ROWS = 1024


def gram(a: Tensor, b: Tensor | None = None) -> Tensor:
    """``a a^T``, or the symmetric ``a b^T + b a^T``, in float64.

    Float32 products would make an evidence covariance indefinite once a prior variance is large against the noise
    (Cholesky fails from a ratio of about 1e6), so the features stay in float32 and blocks of columns are widened. Only the
    upper triangle of row blocks is computed.

    Parameters
    ----------
    a, b : Tensor, shape (m, n)
        Features of any floating dtype.

    Returns
    -------
    Tensor, float64, shape (m, m)
    """
    m = a.shape[0]
    out = torch.zeros(m, m, dtype=torch.float64, device=a.device)
    for columns in range(0, a.shape[1], _COLUMNS):
        left = a[:, columns : columns + _COLUMNS].double()
        right = left if b is None else b[:, columns : columns + _COLUMNS].double()
        for row in range(0, m, _ROWS):
            rows = slice(row, row + _ROWS)
            out[rows, row:] += left[rows] @ right[row:].T
            if b is not None:
                out[rows, row:] += right[rows] @ left[row:].T
    return torch.triu(out) + torch.triu(out, 1).T
