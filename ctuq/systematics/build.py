"""The blocks of a scan, from what is asked for."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.errors import InputError
from ctuq.systematics import detector, pose, shapes
from ctuq.systematics.block import Block
from ctuq.systematics.catalogue import KINDS, Wish
from ctuq.tomo.geometry import FanBeam, Geometry
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.rays.volume import VolumeTransform
from ctuq.tomo.space import VolumeGeometry

_ALIKE = 1e-6
"""Smallest eigenvalue of the normalised columns' Gram matrix: below, one is a sum of the others to a thousandth."""
_SEVERAL = 2
"""Numbers that views must tell for a size to be learned from: of one alone the density is flat, and the shifts of four views
came out as +- 530 mm, where the largest was 0.4."""
_INSIDE = {"%": 0.01, "deg": torch.pi / 180, "mm": 1.0, "1/mm": 1.0, "per unit of line integral": 1.0}
GIVEN = ("gain", "truncation")
"""Errors that a slice's rays are freed of before the fit, by what is no image of it: their blocks are made there."""
_CURVES = {"hardening": shapes.hardening, "scatter": shapes.scatter, "scale": shapes.scale}


def blocks_of(
    wanted: Sequence[Wish],
    A: RayTransform | VolumeTransform,
    image: Tensor,
    weights: Tensor,
    held: Sequence[int] | NDArray[np.int64] = (),
) -> tuple[Block, ...]:
    """The blocks that are asked for, linearised at an image.

    Parameters
    ----------
    wanted : sequence of Wish
    A : RayTransform or VolumeTransform
        Of all used views, whose geometry is known; of a volume, for blocks that are a curve of the line integrals.
    image : Tensor, shape (y, x) or (z, y, x)
        The reconstruction, in 1/mm.
    weights : Tensor, shape (angle, column) or (row, angle, column)
        Of the rays; those of weight 0 say nothing.
    held : sequence of int
        Views from which no error is learned.

    Raises
    ------
    InputError
        If a block that was named changes no ray of this scan, or does what the others do as well.
    """
    at, used, made = _At(A, image, _that_tell(weights, held)), weights.reshape(-1) > 0, []
    for wish in possible(wanted, A.geometry):
        if KINDS[wish.name].of == "cell":
            continue  # of no curve of the rays: `ctuq.systematics.margin` makes it
        block = _block(wish, at)
        if bool((block.columns[used] != 0).any()):
            made.append(block)
        elif wish.needed:
            raise InputError(f"The systematic error {block.name} changes no ray of this scan; leave it out.")
    _refuse_alike([b for b in made if b.columns.shape[1] == 1], used)
    return tuple(made)


def _that_tell(weights: Tensor, held: Sequence[int] | NDArray[np.int64]) -> Tensor:
    """Views from which errors are learned, (angle,) bool."""
    tell = (weights > 0).any(-1)
    tell = tell.reshape(-1, tell.shape[-1]).any(0).cpu()
    tell[torch.as_tensor(np.asarray(held, np.int64))] = False
    return tell


def possible(wanted: Sequence[Wish], geometry: Geometry | VolumeGeometry) -> tuple[Wish, ...]:
    """Those that a scan of this geometry can have.

    Raises
    ------
    InputError
        If it cannot have one that was named.
    """
    for wish in wanted:
        why = missing_in(wish.name, geometry)
        if why and wish.needed:
            raise InputError(f"This scan cannot tell of the systematic error {wish.name}: {why}; leave it out.")
    return tuple(wish for wish in wanted if not missing_in(wish.name, geometry))


def effects_of(names: Iterable[str], A: RayTransform, image: Tensor) -> dict[str, Tensor]:
    """What a unit of each error does to the rays of any views, (angle, column) float64, of views and columns to their own."""
    at = _At(A, image)
    return {name: _effect(name, at) for name in names}


def told_in(name: str) -> float:
    """What numbers inside (mm, radians, shares) are divided by to be told in the unit of their kind."""
    return _INSIDE[KINDS[name].unit]


class _At:
    """What blocks are made from; derivatives that two of them share are made once."""

    def __init__(self, A: RayTransform | VolumeTransform, image: Tensor, tell: Tensor | None = None):
        self.A, self.image = A, image
        self.tell = torch.ones(A.geometry.shape[-2], dtype=torch.bool) if tell is None else tell

    @property
    def flat(self) -> RayTransform:
        """The rays of a slice: of volumes, no derivatives by their geometry are made."""
        assert isinstance(self.A, RayTransform)
        return self.A

    @cached_property
    def rays(self) -> Tensor:
        return self.A(self.image.float()).double()

    @cached_property
    def by_axis(self) -> Tensor:
        return pose.by_axis(self.flat, self.image)

    @property
    def angles(self) -> Tensor:
        return torch.tensor(self.flat.geometry.angles, dtype=torch.float64)


def missing_in(name: str, geometry: Geometry | VolumeGeometry) -> str:
    """Why a scan of this geometry has no such block; empty if it has."""
    *_, views, columns = geometry.shape
    if name == "distance" and not isinstance(geometry, FanBeam):
        return "its rays are parallel, and have no distances"
    if name in ("shift", "jitter") and pose.without_frame(torch.tensor(geometry.angles)).shape[1] == 0:
        return f"{views} views move with the object as a whole"
    if name == "gain" and (views < 2 or detector.rough(columns).shape[1] == 0):
        return f"{views} views of {columns} columns show no ring"
    return ""


def _block(wish: Wish, at: _At) -> Block:
    kind = KINDS[wish.name]
    columns, spread = _columns(wish.name, at)
    unit = _INSIDE[kind.unit]
    if wish.width is not None:
        return Block(wish.name, columns, wish.width * unit, False, kind.hidden, spread)
    width, learned = kind.width * unit, kind.learned
    if kind.of == "view":
        learned = columns.shape[1] - int((~at.tell).sum()) >= _SEVERAL
    if wish.name == "hardening":
        width /= shapes.excess(at.rays)
    if wish.name == "axis":
        width = kind.width * at.flat.geometry.pixel_at_axis
    if wish.name == "distance":
        assert isinstance(at.flat.geometry, FanBeam)
        width = 0.01 * kind.width * at.flat.geometry.source_to_axis
    return Block(wish.name, columns, width, learned, kind.hidden, spread)


def _effect(name: str, at: _At) -> Tensor:
    """What a unit of the error does to each ray, of views and columns to those that are the error's: (angle, column)."""
    if name in _CURVES:
        return _CURVES[name](at.rays)
    if name in ("axis", "shift"):
        return at.by_axis
    if name == "jitter":
        return pose.by_angle(at.flat, at.image)
    return pose.by_distance(at.flat, at.image) if name == "distance" else -torch.ones_like(at.rays)


def _columns(name: str, at: _At) -> tuple[Tensor, Tensor | None]:
    """N, and from eta to what is told."""
    rays = _effect(name, at)
    if KINDS[name].of == "scan":
        return rays.reshape(-1, 1), None
    if name == "flux":
        return detector.rays_of_views(rays), None
    if name == "gain":
        basis = detector.rough(rays.shape[1])
        return detector.of_columns(rays, basis), basis
    basis = pose.without_frame(at.angles, at.tell) if name == "shift" else pose.without_turn(at.tell)
    return detector.rays_of_views(rays, basis), basis


def _refuse_alike(single: Sequence[Block], used: Tensor) -> None:
    """Refuse errors of one number that change the rays as others together do."""
    if len(single) < 2:
        return
    columns = torch.cat([b.columns[used] for b in single], 1)
    columns = columns / columns.norm(dim=0).clamp(min=torch.finfo(columns.dtype).tiny)
    values, vectors = torch.linalg.eigh(columns.T @ columns)
    if float(values[0]) < _ALIKE:
        alike = [b.name for b, share in zip(single, vectors[:, 0].tolist(), strict=True) if abs(share) > 0.1]
        raise InputError(
            f"The systematic errors {' and '.join(alike)} change the rays of this scan alike, so that nothing tells "
            "them apart; leave one out."
        )
