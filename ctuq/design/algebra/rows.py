"""Candidate views as sparse rows: what conditioning multiplies by, in float64."""

from functools import cached_property
from typing import cast

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ctuq.errors import InputError
from ctuq.linops.local import LocalCovariance
from ctuq.linops.sparse import csr_tensor


class ViewRows:
    """The rows ``A_v`` of V candidate views of n rays each, over an image of d pixels.

    Parameters
    ----------
    matrix : scipy sparse array, shape (V * n, d)
        Rows in the order (view, ray).
    views : int
        V.

    Raises
    ------
    InputError
        If the rows cannot be split into V equal views.
    """

    def __init__(self, matrix: sp.csr_array, views: int):
        height, self.size = cast(tuple[int, int], matrix.shape)
        if views < 1 or height % views:
            raise InputError(f"{height} rays cannot be split into {views} views of equal size.")
        self.views, self.rays = views, height // views
        self._matrix = sp.csr_array(matrix, dtype=np.float64)

    def view(self, v: int) -> Tensor:
        """``A_v`` as a sparse tensor (n, d)."""
        return csr_tensor(self._matrix[v * self.rays : (v + 1) * self.rays])

    def project(self, images: Tensor) -> Tensor:
        """``A_v x`` of every view for images (k, d): (V, n, k)."""
        return (self._all @ images.T).reshape(self.views, self.rays, -1)

    def after(self, covariance: LocalCovariance) -> "ViewRows":
        """The rows ``A_v V``."""
        return ViewRows(self._matrix @ covariance.sparse, self.views)

    def squares(self, covariance: LocalCovariance) -> Tensor:
        """``A_v V A_v^T`` of every view: (V, n, n)."""
        scaled = self._matrix @ covariance.sparse
        cuts = [slice(v * self.rays, (v + 1) * self.rays) for v in range(self.views)]
        blocks = np.stack([(scaled[cut] @ self._matrix[cut].T).toarray() for cut in cuts])
        return torch.from_numpy(blocks)

    @cached_property
    def _all(self) -> Tensor:
        return csr_tensor(self._matrix)
