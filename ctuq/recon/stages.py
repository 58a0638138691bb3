"""Large images from coarse to fine: the network is convolutional, so what it learns at half the size it knows at the whole."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ctuq.recon.dip import Data, DIPOptions, DIPState, Generator, dip, finished
from ctuq.tomo import VolumeGrid, ray_transform

_COARSEST = 128


@dataclass(frozen=True, eq=False)
class _Stage:
    generate: Generator
    fit: Data
    held_out: Data


def fit_in_stages(
    generate: Generator,
    start: dict[str, Tensor],
    fit: Data,
    held_out: Data,
    options: DIPOptions,
    *,
    resume: DIPState | None = None,
) -> Iterator[DIPState]:
    """As `ctuq.recon.dip.dip`; images of 256 pixels and more are fitted at 128, then at twice the size, up to their own.

    Each stage starts from the best weights of the one before, and all but the first take fewer iterations. The states'
    ``level`` is how often the size is halved; the last states have level 0.
    """
    highest = levels(fit.A.grid)
    for level in range(highest if resume is None else resume.level, -1, -1):
        stage = _stage(generate, fit, held_out, level)
        state = resume
        settings = _options(options, level, highest)
        for state in dip(stage.generate, start, stage.fit, stage.held_out, settings, resume=resume):
            state = replace(state, level=level)  # noqa: PLW2901
            yield state
        assert state is not None
        start, resume = state.best, None


def levels(grid: VolumeGrid) -> int:
    """How often an image is halved before its fit begins."""
    return max(0, (grid.shape[-1] // _COARSEST).bit_length() - 1)


def steps(grid: VolumeGrid, options: DIPOptions) -> int:
    """Most iterations of all stages together."""
    highest = levels(grid)
    return sum(_options(options, level, highest).length for level in range(highest + 1))


def work(grid: VolumeGrid, options: DIPOptions) -> float:
    """All stages in iterations at full size; one of half the size takes a quarter of its time."""
    highest = levels(grid)
    return sum(_options(options, level, highest).length / 4**level for level in range(highest + 1))


def steps_done(state: DIPState, grid: VolumeGrid, options: DIPOptions) -> int:
    """Iterations of the stages before, and of this one."""
    highest = levels(grid)
    before = sum(_options(options, level, highest).length for level in range(state.level + 1, highest + 1))
    return before + state.iteration


def all_finished(state: DIPState, grid: VolumeGrid, options: DIPOptions) -> bool:
    """Whether nothing is left to be done after this state."""
    return state.level == 0 and finished(state, _options(options, 0, levels(grid)))


def _options(options: DIPOptions, level: int, highest: int) -> DIPOptions:
    return options if level == highest else replace(options, iterations=options.refining)


def _stage(generate: Generator, fit: Data, held_out: Data, level: int) -> _Stage:
    if level == 0:
        return _Stage(generate, fit, held_out)
    grid = fit.A.grid.resized(fit.A.grid.shape[-1] >> level)
    inputs = torch.nn.functional.adaptive_avg_pool2d(generate.inputs[:, 0], list(grid.shape))[:, None]
    return _Stage(replace(generate, inputs=inputs), _coarse(fit, grid), _coarse(held_out, grid))


def _coarse(data: Data, grid: VolumeGrid) -> Data:
    """The data for a coarser grid, with columns averaged while they stay closer than a pixel."""
    geometry = data.A.geometry
    factor = max(1, min(int(grid.voxel / geometry.pixel_at_axis + 1e-6), geometry.columns))
    binned = geometry.binned(factor)
    blocks = (*data.y.shape[:-1], binned.columns, factor)
    kept = binned.columns * factor
    y, weights = data.y[..., :kept].reshape(blocks), data.weights[..., :kept].reshape(blocks)
    total = weights.sum(-1)
    mean = (weights * y).sum(-1) / torch.where(total > 0, total, 1)
    A = ray_transform(grid, binned, device=data.y.device)
    return Data(A, torch.where(total > 0, mean, y.mean(-1)), weights.mean(-1))
