"""What the rays of views to come will be worth: from their exposure, and from the photons that the present image lets pass."""

import torch
from torch import Tensor

from ctuq.design.models.model import GaussianModel, Measurements
from ctuq.design.problem import DesignProblem


def expected_weights(problem: DesignProblem, model: GaussianModel | None, measured: Measurements) -> Tensor:
    """Relative precision of every ray of every view, on the scale of the measured weights.

    Weights are proportional to the dose; where they are photon counts also to ``exp(-A x)`` of the model's image x. Detector
    columns that counted for nothing in every measured view will count for nothing again.

    Returns
    -------
    Tensor, float64, shape (V, n)
    """
    doses = torch.from_numpy(problem.doses)[:, None]
    weights = doses.expand(problem.A.geometry.shape)
    seen, known = torch.from_numpy(measured.views), measured.weights.cpu().double()
    if problem.exposure.counts and model is not None and model.image is not None:
        weights = doses * torch.exp(-problem.A(model.image.float()).double()).cpu()
        # Of the measured rays where there are some; otherwise a mean weight of 1, as counts are normalised to.
        used = known > 0
        scale = known[used].mean() / weights[seen][used].mean() if len(seen) else 1 / weights.mean()
        weights = weights * scale
    if len(seen):
        weights = torch.where((known > 0).any(0), weights, 0.0)
    return weights
