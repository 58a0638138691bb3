"""What the slices of a stack gave."""

import numpy as np
from numpy.typing import NDArray

from ctuq import records
from ctuq.pipeline.stack.work import Product
from ctuq.stages import Stages
from ctuq.tomo.geometry import VolumeGrid


class Products:
    """What slices gave, on the disk where there is a checkpoint and room for it, else in memory; what is small always there."""

    def __init__(self, stages: Stages):
        self._stages, self._held = stages, dict[str, Product]()
        self._told = dict[str, tuple[dict[str, float], str]]()

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self._told)

    def __contains__(self, name: str) -> bool:
        if name not in self._told:
            self._tell(name, self._stages.kept(name))
        return name in self._told

    def __getitem__(self, name: str) -> Product:
        held = self._held.get(name)
        return self._stages.kept(name) if held is None else held  # pyright: ignore[reportReturnType]

    def __setitem__(self, name: str, product: Product) -> None:
        self._tell(name, product)
        if not self._stages.keep(name, product):
            self._held[name] = product

    def _tell(self, name: str, product: Product | None) -> None:
        if product is not None:
            self._told[name] = product.get("facts", {}), product.get("failed", "")

    def facts(self, number: int) -> tuple[dict[str, float], str]:
        """What a slice tells of itself, and why it failed."""
        return self._told[f"slice {number}"]

    def volume(self, name: str, grid: VolumeGrid) -> records.Blocks:
        """The slices' images of one kind."""

        def one(z: int) -> NDArray[np.float32]:
            image = self[f"slice {z}"].get(name)
            return np.full(grid.shape[1:], np.nan, np.float32) if image is None else image.numpy()

        depth, height, width = grid.shape
        return records.Blocks((depth, height, width), one)
