"""One systematic error of a scan: what it does to the rays, its unit, and how large it may be."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Block:
    """Columns N of the rays, and the prior of their factors eta.

    Parameters
    ----------
    name : str
        Of `ctuq.systematics.catalogue.KINDS`.
    columns : Tensor, float64, shape (rays, k)
        What one unit of each eta adds to every ray of the scan, views and columns flattened.
    width : float
        Prior standard deviation of each eta, in its unit; where it is learned, what is typical.
    learned : bool
        Whether the evidence learns the width.
    hidden : bool
        Whether an image holds the error as well: it is then no unknown of the model, but its width is carried into the error
        bars.
    spread : Tensor, float64, shape (n, k), optional
        On the CPU. From eta to what is told, one number a view or column; None where eta is told itself.
    """

    name: str
    columns: Tensor
    width: float
    learned: bool
    hidden: bool = False
    spread: Tensor | None = None

    def told(self, eta: Tensor) -> Tensor:
        """Of factors (..., k), on the CPU, the numbers that are told, (..., n)."""
        return eta if self.spread is None else eta @ self.spread.T


def columns_of(blocks: Sequence[Block], rays: Tensor, precision: Tensor) -> Tensor:
    """What a prior standard deviation of each number does to rays of these indices and weights, whitened: (m, k), float64."""
    root = precision.sqrt()[:, None]
    return torch.cat([block.width * block.columns.to(root)[rays] * root for block in blocks], 1)
