"""Makes a session's designer, and keeps whatever is dear to make: in memory, and in a folder beside the session."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from ctuq.design.algebra.conditioning import GivenViews
from ctuq.design.designer import Designer
from ctuq.design.models.model import GaussianModel
from ctuq.design.problem import DesignProblem
from ctuq.design.session.cache import ModelCache, steps_of
from ctuq.design.session.file import Record, digest
from ctuq.design.session.model import LearnedModel, learn, restore, restore_network
from ctuq.design.session.problem import design_problem
from ctuq.versions import version_of

_log = logging.getLogger(__name__)


class DesignerBuilder:
    """Problem, model and designer of one session, whatever state it is in.

    Parameters
    ----------
    folder : Path
        For the cache; it can be deleted at any time.
    """

    def __init__(self, folder: Path):
        self._cache = ModelCache(folder)
        self._models: dict[str, GaussianModel] = {}
        self._given: tuple[list[str], GivenViews] | None = None
        self._opened: DesignProblem | None = None

    def problem(self, record: Record) -> DesignProblem:
        """The design problem; its ray transform is made once."""
        known, changes = self._opened, (record.counted is not None, record.settings.budget)
        if known is None or (known.exposure.counts, known.budget) != changes:
            known = self._opened = design_problem(record, None if known is None else known.A)
        return known

    def designer(self, record: Record) -> Designer:
        """A designer with the session's model, conditioned on all its measured views."""
        problem, model, steps = self.problem(record), self._model(record), self._steps(record)
        if self._given is not None and self._given[0] == steps[: len(self._given[0])]:
            given = self._given[1]
        else:
            region = problem.region_weights if problem.criterion.regional else None
            given = self._cache.conditioned(steps, record.state.views.tolist(), problem.rows, model.covariance, region)
        designer = Designer(problem, model, state=record.state, conditioned=given)
        self._given = steps, designer.conditioned
        self._cache.keep_conditioned(steps, designer.conditioned)
        self._cache.forget_steps(steps)
        return designer

    def learn(self, record: Record, *, anew: bool) -> LearnedModel:
        """Learn from the session's views, and condition on them."""
        found = learn(record, self.problem(record), lambda: self._network(record), anew=anew, folder=self._cache.learning)
        draft = replace(record, learnt=found.learnt)
        self._models = {_model_key(draft): found.model}
        if found.network is not None:
            self._models[_network_key(draft)] = found.network
        for key, model in self._models.items():
            self._cache.keep_model(key, model)
        self.designer(draft)
        return found

    @property
    def learning(self) -> bool:
        """Whether somebody is learning, or was killed when learning."""
        return self._cache.learning.is_dir()

    def tidy(self, record: Record) -> None:
        """Forget what is of no more use to the session; nobody else may be learning."""
        self._cache.forget([_model_key(record), _network_key(record)], self._steps(record))

    def _model(self, record: Record) -> GaussianModel:
        key = _model_key(record)
        if key not in self._models:
            model = self._cache.model(key)
            if model is None:
                _log.info("The covariance is not in the cache; it is computed again.")
                model = restore(record, self.problem(record), lambda: self._network(record))
                self._cache.keep_model(key, model)
            self._models[key] = model
        return self._models[key]

    def _network(self, record: Record) -> GaussianModel:
        key = _network_key(record)
        if key not in self._models:
            self._models[key] = self._cache.model(key) or restore_network(record, self.problem(record))
            self._cache.keep_model(key, self._models[key])
        return self._models[key]

    def _steps(self, record: Record) -> list[str]:
        """Names of the model given no, one, ... of the views; the A-optimal gain carries its region along."""
        region, problem = None, self.problem(record)
        if problem.criterion.regional:
            region = np.ones(1) if problem.region is None else np.asarray(problem.region)
        return steps_of(_model_key(record), record.state, region)


def _model_key(record: Record) -> str:
    """A hash of all that a session's model depends on."""
    prior, learnt = record.settings.prior, record.learnt
    assert learnt is not None
    if prior in ("lindip", "gprior"):
        return _network_key(record)
    return digest((_network_key(record), prior, learnt.views, learnt.marks))


def _network_key(record: Record) -> str:
    """A hash of all that the network's part of it depends on."""
    s, learnt = record.settings, record.learnt
    assert learnt is not None
    return digest(
        (version_of("ctuq"), record.geometry, s.size, s.prior == "gprior", s.network, learnt.network, learnt.network_views)
    )
