"""Errors of the scanner that no ray tells, in error bars of any program: what they make of an image, beside all else."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.recon import tv
from ctuq.scores.gaussian import truth_scores
from ctuq.systematics.block import Block
from ctuq.systematics.build import blocks_of, told_in
from ctuq.systematics.catalogue import KINDS, UNSURE, Wish
from ctuq.systematics.shapes import excess
from ctuq.tomo.rays.transform import RayTransform
from ctuq.uncertainty.results.contents import Systematic
from ctuq.uncertainty.results.image import Result

_NO_UNIT = (
    "Line integrals up to {:.3g} cannot be such: values are taken to be in a unit of their own, and what beam hardening may "
    "have done as for integrals up to 2."
)
_VIEWS = 96
_OBJECT = 0.5
"""Of the image's 99th percentile: what lies above is the object."""


@dataclass(frozen=True, eq=False)
class HiddenErrors:
    """Errors that an image holds as well as its object, and how far each puts it beside the truth.

    Parameters
    ----------
    blocks : tuple of Block
    images : array, float64, shape (k, y, x)
        By a standard deviation of each of their numbers, 1/mm: as far as total variation's image moves.
    """

    blocks: tuple[Block, ...]
    images: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        wanted: Sequence[Wish],
        A: RayTransform,
        y: Tensor,
        weights: Tensor,
        image: NDArray[np.floating],
        *,
        strength: float | None = None,
    ) -> "HiddenErrors":
        """Those that are asked for, of a scan with this image.

        Parameters
        ----------
        wanted : sequence of Wish
            Of errors that no ray tells.
        A : RayTransform
            Of all views.
        y, weights : Tensor, shape (angle, column)
        image : array, shape (y, x)
            1/mm.
        strength : float, optional
            Of total variation.
        """
        blocks = blocks_of(wanted, A, torch.as_tensor(image, dtype=y.dtype, device=y.device), weights)
        if not blocks:
            return cls((), np.zeros((0, *image.shape)))
        columns = torch.cat([block.width * block.columns for block in blocks], 1).T.reshape(-1, *y.shape).to(y)
        # What they do to an image is smooth in the angle: of many views some tell it.
        views = np.unique(np.linspace(0, len(y) - 1, min(len(y), _VIEWS)).round().astype(int))
        at = torch.from_numpy(views).to(y.device)
        rays = torch.cat([y[None], y + columns])[:, at]
        images = tv(A.subset(views), rays, weights=weights[at].expand_as(rays), strength=strength).double().cpu().numpy()
        return cls(blocks, images[0] - images[1:])

    def within(self, result: Result, *, rng: torch.Generator, draws: int = 64) -> Result:
        """The result with these errors in its standard deviations, samples and directions, beside what held-out views scaled.

        Parameters
        ----------
        result : Result
            Calibrated, and with error bars that know of no such errors.
        rng : torch.Generator
        draws : int
            Of the errors, where there are no samples.
        """
        if not self.blocks:
            return result
        assert result.std is not None and result.std_raw is not None and result.calibration is not None
        added = np.square(self.images).sum(0)
        std, raw = (
            np.sqrt(np.square(bars, dtype=np.float64) + added / scale).astype(np.float32)
            for bars, scale in ((result.std, 1.0), (result.std_raw, result.calibration.image_scale))
        )
        samples, images = result.samples, self.images.astype(np.float32)
        count = draws if samples is None else len(samples)
        z = torch.randn(count, len(images), generator=rng, dtype=torch.float64, device=rng.device).cpu().numpy()
        if samples is not None:
            samples = (samples + np.tensordot(z, self.images, 1)).astype(np.float32)
        directions = images if result.directions is None else np.concatenate([result.directions, images])
        widths = np.concatenate([np.full(block.columns.shape[1], block.width) for block in self.blocks])
        told = hidden_alone(self.blocks, torch.from_numpy(result.mean), std, (z * widths).astype(np.float32), images)
        scores = dict(result.scores)
        if result.truth is not None:
            scores |= {
                name: truth_scores(result.mean, bars, result.truth) for name, bars in (("truth", std), ("truth_raw", raw))
            }
        bars = {"std": std, "std_raw": raw, "samples": samples, "directions": directions}
        doubts = doubts_of_errors(self.blocks)
        return replace(result, **bars, scores=scores, systematics=told, warnings=result.warnings + doubts)


def hidden_alone(
    blocks: Sequence[Block],
    image: Tensor,
    std: NDArray[np.float32],
    draws: NDArray[np.float32],
    effects: NDArray[np.float32],
) -> dict[str, Systematic]:
    """Each hidden error beside error bars that know of no others.

    Parameters
    ----------
    blocks : sequence of Block
    image : Tensor, shape (y, x)
    std : array, shape (y, x)
        With all that is in it.
    draws : array, shape (samples, k)
        Deviations of the errors, scaled.
    effects : array, shape (k, y, x)
        Scaled.
    """
    told, start, inside = {}, 0, inside_of(image.cpu()).reshape(image.shape).numpy()
    whole = float(np.square(std[inside], dtype=np.float64).sum())
    for block in blocks:
        part = slice(start, start + block.columns.shape[1])
        start = part.stop
        unit, kind = told_in(block.name), KINDS[block.name]
        by = block.told(torch.eye(block.columns.shape[1], dtype=torch.float64)).T
        told[block.name] = Systematic(
            unit=kind.unit,
            of=kind.of,
            values=np.zeros(len(by)),
            std=(block.width * by.norm(dim=1) / unit).numpy(),
            width=block.width / unit,
            learned=False,
            hidden=True,
            share=min(1.0, float(np.square(effects[part][:, inside], dtype=np.float64).sum()) / max(whole, 1e-300)),
            effect=effects[part][0] if len(effects[part]) == 1 else None,
            samples=(torch.from_numpy(draws[:, part]).double() @ by.T / unit).float().numpy(),
        )
    return told


def inside_of(image: Tensor) -> Tensor:
    """Which pixels of an image are the object, (d,) bool."""
    inside = image.flatten() > _OBJECT * float(np.percentile(image.numpy(), 99))
    return inside if bool(inside.any()) else torch.ones_like(inside)


def doubts_of_errors(blocks: Iterable[Block]) -> tuple[str, ...]:
    """What to know of the errors before they are trusted."""
    blocks = tuple(blocks)
    told = tuple(UNSURE[block.name] for block in blocks if not block.hidden and block.name in UNSURE)
    for block in (block for block in blocks if block.hidden):
        usual, p = KINDS["hardening"].width, block.columns.abs().max().sqrt()
        if block.name == "hardening" and excess(p) > 1 and math.isclose(block.width * excess(p), usual):
            told += (_NO_UNIT.format(float(p)),)
    return told
