"""What the posterior says of a scan's systematic errors, in the units that people know."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.linops.gaussian import explained, stable_cholesky
from ctuq.systematics.build import told_in
from ctuq.systematics.catalogue import KINDS
from ctuq.uncertainty.estimate import Evidence
from ctuq.uncertainty.hidden_errors import inside_of
from ctuq.uncertainty.model.linear import ImageModel
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.results.contents import Systematic


def systematics_of(
    posterior: ImagePosterior, evidence: Evidence, scale: float, draws: NDArray[np.float32], effects: NDArray[np.float32]
) -> dict[str, Systematic]:
    """Each block of the model.

    Parameters
    ----------
    posterior : ImagePosterior
        Raw; its covariance is to be multiplied by ``scale``.
    evidence : Evidence
    scale : float
        Of the image's covariance.
    draws : array, shape (samples, e)
        Deviations of all errors, scaled.
    effects : array, shape (k, y, x)
        Of the hidden errors, scaled.
    """
    model = posterior.model
    blocks = (*model.blocks, *model.hidden)
    if not blocks:
        return {}
    mean, covariance, cross = (values.cpu() for values in posterior.errors())
    variances = [*model.prior.error_variances(evidence.psi).tolist(), *(block.width**2 for block in model.hidden)]
    told, start, of = {}, 0, _told_by(model)
    taken = None if model.taken is None else torch.cat([model.taken.cpu(), mean.new_zeros(len(mean) - len(model.taken))])
    counts = [block.columns.shape[1] for block in model.hidden]
    parts = np.split(effects, np.cumsum(counts[:-1])) if counts else []
    # What many numbers do together is no one picture.
    shown = [*(None for _ in model.blocks), *(part[0] if len(part) == 1 else None for part in parts)]
    for block, variance, effect in zip(blocks, variances, shown, strict=True):
        part = slice(start, start + block.columns.shape[1])
        start = part.stop
        unit, kind = told_in(block.name), KINDS[block.name]
        width = variance**0.5 if block.learned else block.width
        by = of[block.name]
        own = ((by @ covariance) * by).sum(1).clamp(min=0).sqrt()
        told[block.name] = Systematic(
            unit=kind.unit,
            of=kind.of,
            values=(by @ mean / unit).numpy(),
            std=(scale**0.5 * own / unit).numpy(),
            width=width / unit,
            learned=block.learned,
            hidden=kind.hidden,
            share=_share(posterior, covariance[part, part], cross[part]),
            taken=None if taken is None or not bool(taken[part].any()) else (by @ taken / unit).numpy(),
            effect=effect,
            samples=((mean + torch.from_numpy(draws).double()) @ by.T / unit).float().numpy(),
        )
    return told


def _told_by(model: ImageModel) -> dict[str, Tensor]:
    """By name, from the factors of all blocks to what is told of each, (n, e): the axis is where it was on the average view.

    In the model it is that of the views from which shifts are learned, beside which the held-out ones have shifts with a mean:
    of a fan whose views moved by 0.5 mm the axis was told as 0.447 +- 0.008 mm, where it was 0.5.
    """
    blocks = (*model.blocks, *model.hidden)
    eye = torch.eye(sum(block.columns.shape[1] for block in blocks), dtype=torch.float64)
    parts = eye.split([block.columns.shape[1] for block in blocks])
    told = {block.name: block.told(part.T).T for block, part in zip(blocks, parts, strict=True)}
    if "axis" in told and "shift" in told:
        common = told["shift"][model.views.unique().cpu()].mean(0)
        told |= {"axis": told["axis"] + common, "shift": told["shift"] - common}
    return told


def _share(posterior: ImagePosterior, covariance: Tensor, cross: Tensor) -> float:
    """Of the image's variance inside the object, what errors of this covariance would take away if they were known."""
    inside = inside_of(posterior.model.image.cpu())
    whole = float(posterior.std().square().flatten().cpu()[inside].sum())
    told = explained(stable_cholesky(covariance), cross[:, inside])
    return min(1.0, float(told.sum()) / max(whole, 1e-300))
