"""From what was told to a model conditioned on it."""

from dataclasses import replace

import torch
from torch import Tensor

from ctuq.design.algebra.conditioning import Conditioned
from ctuq.design.models.model import GaussianModel, Measurements
from ctuq.design.noise import expected_weights
from ctuq.design.problem import DesignProblem
from ctuq.design.state import DesignState


def measurements_of(problem: DesignProblem, state: DesignState) -> Measurements:
    """The measured views as tensors on the ray transform's device."""
    y, weights = (torch.tensor(a, dtype=torch.float32, device=problem.A.device) for a in (state.projections, state.weights))
    return Measurements(problem.A, state.views, y, weights)


def condition(problem: DesignProblem, state: DesignState, model: GaussianModel) -> Conditioned:
    """A model given all measured views, with the weights that the others are expected to have."""
    rows = model.rows(problem.A)
    region = problem.region_weights(rows.size, model.space) if problem.criterion.regional else None
    planned = _planned(problem, state, model)
    return condition_on_new(problem, Conditioned.start(rows, model.covariance, planned, region=region), state, model)


def condition_on_new(problem: DesignProblem, given: Conditioned, state: DesignState, model: GaussianModel) -> Conditioned:
    """A model given the first of the measured views, given the rest as well; what others will weigh is foreseen anew."""
    if len(given.views) < len(state.views):
        given = replace(given, precision=_planned(problem, state, model))
    for view, weights in zip(state.views[len(given.views) :], state.weights[len(given.views) :], strict=True):
        given = given.given(int(view), torch.from_numpy(weights).double() / model.sigma2)
    return given


def _planned(problem: DesignProblem, state: DesignState, model: GaussianModel) -> Tensor:
    return expected_weights(problem, model, measurements_of(problem, state)) / model.sigma2
