"""What is taken out of a scan before its image is fitted again: the scanner is put where it was, the rest leaves the rays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ctuq.systematics.block import Block
from ctuq.tomo.geometry import FanBeam, Geometry

_MOVES = ("axis", "jitter", "distance")
"""Errors of where things are: geometries have them, so that no derivative is left of what is known of them."""


@dataclass(frozen=True, eq=False)
class Taken:
    """Estimates of systematic errors.

    Parameters
    ----------
    values : mapping of str to Tensor, float64, shape (n,)
        On the CPU, by name: as they are told (one of the scan, of each view or column), in mm, radians and shares.
    moves : bool
        Whether the ray transform can be made anew for another geometry; else all leave the rays.
    """

    values: Mapping[str, Tensor] = field(default_factory=dict)
    moves: bool = True

    def __bool__(self) -> bool:
        return bool(self.values)

    def scanner(self, geometry: Geometry) -> Geometry:
        """The geometry that these errors make of the one that was given."""
        if not self.moves:
            return geometry
        for name, value in self.values.items():
            if name == "axis":
                geometry = replace(geometry, axis_offset=geometry.axis_offset + float(value[0]))
            elif name == "jitter":
                geometry = replace(geometry, angles=geometry.angles + value.numpy())
            elif name == "distance":
                assert isinstance(geometry, FanBeam)
                geometry = replace(geometry, source_to_axis=geometry.source_to_axis + float(value[0]))
        return geometry

    def moved(self, name: str) -> bool:
        """Whether the geometry has this error."""
        return self.moves and name in self.values and name in _MOVES

    def factors(self, blocks: Sequence[Block]) -> dict[str, Tensor]:
        """By name, of each block that is taken out, its factors (k,)."""
        found = {block.name: block for block in blocks}
        return {name: _factors(found[name], value) for name, value in self.values.items() if name in found}

    def rays(self, blocks: Sequence[Block]) -> Tensor | float:
        """What those that the geometry does not have add to the rays (views * columns,), float64; 0 for none."""
        total: Tensor | float = 0.0
        for block in blocks:
            if block.name in self.values and not self.moved(block.name):
                total = total + block.columns @ _factors(block, self.values[block.name]).to(block.columns)
        return total


def _factors(block: Block, value: Tensor) -> Tensor:
    return value if block.spread is None else block.spread.T @ value.to(torch.float64)
