"""Of a slice whose object reaches beyond the image: how unsure what lies outside is."""

from collections.abc import Sequence

import torch
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.pipeline.views import lies_outside
from ctuq.recon.dip import Data
from ctuq.systematics.block import Block
from ctuq.systematics.build import GIVEN
from ctuq.systematics.catalogue import Wish
from ctuq.systematics.margin import margin
from ctuq.tomo.field import outline_of
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.scan import Scan


def asked_outside(asked: Sequence[Wish], scan: Scan, grid: VolumeGrid) -> Wish | None:
    """The wish for truncation, of an object that reaches beyond the image.

    Raises
    ------
    InputError
        If it was named, and nothing of the object lies outside.
    """
    wish = next((each for each in asked if each.name == "truncation"), None)
    if wish is None or lies_outside(scan, grid, flux=any(each.name == "flux" for each in asked)):
        return wish
    if wish.needed:
        raise InputError("The systematic error truncation is of objects that reach beyond the image; this one does not.")
    return None


def outside_blocks(asked: Sequence[Wish], data: Data, scan: Scan, image: NDArray) -> tuple[Block, ...]:
    """What the estimate of what lies outside may miss, to be considered in error bars.

    Parameters
    ----------
    asked : sequence of Wish
    data : Data
        What lies inside, of all views.
    scan : Scan
    image : array, shape (y, x)
        Of these rays, 1/mm.
    """
    assert isinstance(data.A, RayTransform)
    wish = asked_outside(asked, scan, data.A.grid)
    if wish is None:
        return ()
    block = margin(data.A, torch.as_tensor(image, device=data.y.device), outline_of(scan).reach, wish.width)
    return (block,) if block.columns.shape[1] else ()


def made_at_image(asked: Sequence[Wish]) -> tuple[Wish, ...]:
    """Errors whose blocks are linearised at the image of a fit."""
    return tuple(wish for wish in asked if wish.name not in GIVEN)
