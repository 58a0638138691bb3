"""What the slices of a stack gave."""

import numpy as np
from numpy.typing import NDArray

from ctuq import records
from ctuq.pipeline.stack.work import Product
from ctuq.quantities.through import likeness
from ctuq.stages import Stages

_PAIR = 2


class Products:
    """What slices gave, on the disk where there is a checkpoint and room for it, else in memory; what is small always there."""

    def __init__(self, stages: Stages):
        self.stages, self._held = stages, dict[str, Product]()
        self._told = dict[str, tuple[dict[str, float], str]]()

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self._told)

    def __contains__(self, name: str) -> bool:
        if name not in self._told:
            self._tell(name, self.stages.kept(name))
        return name in self._told

    def __getitem__(self, name: str) -> Product:
        held = self._held.get(name)
        return self.stages.kept(name) if held is None else held  # pyright: ignore[reportReturnType]

    def __setitem__(self, name: str, product: Product) -> None:
        self._tell(name, product)
        if not self.stages.keep(name, product):
            self._held[name] = product

    def _tell(self, name: str, product: Product | None) -> None:
        if product is not None:
            self._told[name] = product.get("facts", {}), product.get("failed", "")

    def facts(self, number: int) -> tuple[dict[str, float], str]:
        """What a slice tells of itself, and why it failed."""
        return self._told[f"slice {number}"]

    def volume(self, name: str, shape: tuple[int, ...]) -> records.Blocks:
        """The slices' arrays of one name, of this shape together; NaN of slices that were not made."""

        def one(z: int) -> NDArray[np.float32]:
            found = self[f"slice {z}"].get(name)
            return np.full(shape[1:], np.nan, np.float32) if found is None else np.asarray(found, np.float32)

        return records.Blocks(shape, one)

    def alike(self, count: int) -> NDArray[np.float64] | None:
        """How alike the slices err, by their held-out rays; None where no two slices have the same ones."""
        held = [self[f"slice {z}"].get("held") for z in range(count)]
        known = [each for each in held if each is not None]
        same = [each for each in known if np.array_equal(each["views"], known[0]["views"])]
        if len(same) < min(count, _PAIR):
            return None
        none = np.full(len(known[0]["residual"]), np.nan)
        rows = [each if any(each is other for other in same) else None for each in held]
        names = ("residual", "signal", "noise")
        return likeness(*(np.stack([none if row is None else np.asarray(row[name]) for row in rows]) for name in names))
