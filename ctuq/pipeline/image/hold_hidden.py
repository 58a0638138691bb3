"""Errors of the scanner that no ray tells, in error bars of any kind: what they make of the image, beside all else."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.run import Run
from ctuq.recon import tv
from ctuq.recon.dip import Data
from ctuq.scores.gaussian import truth_scores
from ctuq.systematics.block import Block
from ctuq.tomo.rays.transform import RayTransform
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.systematics import hidden_alone


def hidden_images(data: Data, blocks: tuple[Block, ...], strength: float | None) -> NDArray[np.float64]:
    """How far a standard deviation of each error puts the image beside the truth, (k, y, x): as total variation's image moves.

    Parameters
    ----------
    data : Data
        All views.
    blocks : tuple of Block
    strength : float, optional
        Of total variation.
    """
    assert isinstance(data.A, RayTransform)
    columns = torch.cat([block.width * block.columns for block in blocks], 1).T.reshape(-1, *data.y.shape).to(data.y)
    rays = torch.cat([data.y[None], data.y + columns])
    images = tv(data.A, rays, weights=data.weights.expand_as(rays), strength=strength).double().cpu().numpy()
    return images[0] - images[1:]


def with_hidden(run: Run[ReconstructOptions], result: Result, blocks: tuple[Block, ...], images: NDArray[np.float64]) -> Result:
    """The result with these errors in its standard deviations, samples and directions.

    Parameters
    ----------
    run : Run
    result : Result
        With error bars that know of no such errors.
    blocks : tuple of Block
    images : array, shape (k, y, x)
        Of `hidden_images`.
    """
    assert result.std is not None and result.std_raw is not None and result.calibration is not None
    added = np.square(images).sum(0)
    std, raw = (
        np.sqrt(np.square(bars, dtype=np.float64) + added / scale).astype(np.float32)
        for bars, scale in ((result.std, 1.0), (result.std_raw, result.calibration.image_scale))
    )
    samples = result.samples
    count = run.options.samples if samples is None else len(samples)
    z = torch.randn(count, len(images), generator=run.rng, dtype=torch.float64, device=run.rng.device).cpu().numpy()
    if samples is not None:
        samples = (samples + np.tensordot(z, images, 1)).astype(np.float32)
    directions = images.astype(np.float32)
    if result.directions is not None:
        directions = np.concatenate([result.directions, directions])
    widths = np.concatenate([np.full(block.columns.shape[1], block.width) for block in blocks])
    told = hidden_alone(blocks, torch.from_numpy(result.mean), std, (z * widths).astype(np.float32), images.astype(np.float32))
    scores = dict(result.scores)
    if result.truth is not None:
        scores |= {
            "truth": truth_scores(result.mean, std, result.truth),
            "truth_raw": truth_scores(result.mean, raw, result.truth),
        }
    return replace(result, std=std, std_raw=raw, samples=samples, directions=directions, scores=scores, systematics=told)
