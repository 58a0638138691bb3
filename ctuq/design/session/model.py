"""How a session's model is learned, and made again from what was learned."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctuq.design.measurements import measurements_of
from ctuq.design.models.edges import Edges
from ctuq.design.models.learners import Sum, learner
from ctuq.design.models.lindip import Fitted, LinDIPOptions, LinearisedDIP
from ctuq.design.models.model import GaussianModel, Measurements
from ctuq.design.problem import DesignProblem
from ctuq.design.session.file import Learnt, Record, Settings, marks_of
from ctuq.design.session.plan import network_due
from ctuq.errors import InputError
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.uncertainty.calibration.scales import Scales
from ctuq.uncertainty.estimate import Evidence

_NETWORK_PRIORS = ("lindip", "gprior", "lindip+edges")


@dataclass(frozen=True, eq=False)
class LearnedModel:
    """A model, what it was learned from, and the network's part of it where it is a sum."""

    learnt: Learnt
    model: GaussianModel
    network: GaussianModel | None


def learn(
    record: Record,
    problem: DesignProblem,
    network: Callable[[], GaussianModel] | None = None,
    *,
    anew: bool = False,
    folder: Path | None = None,
) -> LearnedModel:
    """Learn the model from all measured views; the network only where that is due.

    Parameters
    ----------
    record : Record
    problem : DesignProblem
    network : callable, optional
        Gives the network's present part where it is not to be fitted again.
    anew : bool
        Fit the network again whether it is due or not.
    folder : Path, optional
        Where a fit is kept while it is made.
    """
    measured, prior = measurements_of(problem, record.state), record.settings.prior
    views, marks = record.state.views, marks_of(record.state)
    if prior not in _NETWORK_PRIORS:
        model = learner(prior)(measured)
        return LearnedModel(_learnt(views, marks, None, views[:0], model), model, None)
    kept = record.learnt
    if anew or network is None or kept is None or kept.network is None or network_due(record):
        warm = None if kept is None or kept.network is None else _fitted_from(kept.network)
        dip = LinearisedDIP(network_options(record.settings, record.dims), warm, folder=folder)
        part, seen = dip(measured), views
        assert dip.fitted is not None
        tree = _plain(dip.fitted)
    else:
        part, tree, seen = network(), kept.network, kept.network_views
    model = _summed(part, measured) if prior == "lindip+edges" else part
    return LearnedModel(_learnt(views, marks, tree, seen, model), model, part)


def restore_network(record: Record, problem: DesignProblem) -> GaussianModel:
    """The network's part of the model, made again from the fit that is stored."""
    learnt = record.learnt
    assert learnt is not None and learnt.network is not None
    dip = LinearisedDIP(network_options(record.settings, record.dims), _fitted_from(learnt.network))
    return dip.restored(_of(record, problem, learnt.network_views))


def restore(record: Record, problem: DesignProblem, network: Callable[[], GaussianModel]) -> GaussianModel:
    """The model, made again from what was learned.

    Parameters
    ----------
    record : Record
        With ``learnt``.
    problem : DesignProblem
    network : callable
        Gives the network's part.
    """
    assert record.learnt is not None
    if record.settings.prior in ("lindip", "gprior"):
        return network()
    measured = _of(record, problem, record.learnt.views)
    return _summed(network(), measured) if record.settings.prior == "lindip+edges" else learner(record.settings.prior)(measured)


def network_options(settings: Settings, dims: int = 2) -> LinDIPOptions:
    """The options of the network's fit, of an image of so many axes.

    Raises
    ------
    InputError
        If the settings name an option that does not exist.
    """
    usual = LinDIPOptions(dip=DIPOptions(network=UNetOptions(dims=dims)))
    options = _changed(usual, settings.network)
    return options.with_prior("g") if settings.prior == "gprior" else options


def _plain(value: Any) -> Any:
    """Nested arrays, numbers and text of nested tensors and dataclasses."""
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return value


def _fitted_from(tree: Mapping[str, Any]) -> Fitted:
    """The fit that `_plain` took apart."""

    def tensors(values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for key, v in values.items()}

    parts = {
        "parameters": tensors(tree["parameters"]),
        "evidence": Evidence(**tensors(tree["evidence"])),
        "scales": Scales(**tree["scales"]),
    }
    return Fitted(**(tensors({key: value for key, value in tree.items() if key not in parts}) | parts))


def _learnt(views: Any, marks: tuple[str, ...], network: Any, network_views: Any, model: GaussianModel) -> Learnt:
    return Learnt(views, marks, network, network_views, dict(model.hyperparameters), model.note)


def _summed(network: GaussianModel, measured: Measurements) -> GaussianModel:
    return Sum((lambda _: network, Edges()))(measured)


def _of(record: Record, problem: DesignProblem, views: Any) -> Measurements:
    """The measurements of these views, as far as they are still there."""
    places = [int(np.flatnonzero(record.state.views == view)[0]) for view in views if view in record.state.views]
    state = record.state
    return measurements_of(
        problem,
        replace(state, views=state.views[places], projections=state.projections[places], weights=state.weights[places]),
    )


def _changed(options: Any, changes: Mapping[str, Any]) -> Any:
    known = {f.name: getattr(options, f.name) for f in fields(options)}
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise InputError(f"The network has no option {unknown[0]!r}; there are {', '.join(known)}.")
    nested = {
        name: _changed(known[name], value) if is_dataclass(known[name]) and isinstance(value, Mapping) else value
        for name, value in changes.items()
    }
    return replace(options, **nested)
