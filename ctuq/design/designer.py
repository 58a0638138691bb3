"""The designer: asked for angles, told projections; the same for a simulation and at a scanner."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ctuq.design.algebra.conditioning import Conditioned
from ctuq.design.greedy import greedy
from ctuq.design.intake import rays, refuse_repeats, weights_of
from ctuq.design.measured import condition, condition_on_new, measurements_of
from ctuq.design.models.model import GaussianModel, Learn, Measurements
from ctuq.design.noise import expected_weights
from ctuq.design.problem import DesignProblem
from ctuq.design.state import Decision, DesignState, Suggestion
from ctuq.errors import InputError


class Designer:
    """Chooses the next angles.

    Parameters
    ----------
    problem : DesignProblem
    model : GaussianModel, callable or None
        The model of image and noise; or how it is learned from the measured views, called after every `tell` and `reject` (wrap
        it in `Every` to learn more rarely). A callable that returns the model it returned before changes nothing. None only
        takes projections in.
    state : DesignState, optional
        Of an earlier session.
    resumed : GaussianModel, optional
        The model of that session, which is then not learned again at once.
    conditioned : Conditioned, optional
        That model given the first of the state's views, with the weights that they were measured with.

    Attributes
    ----------
    problem : DesignProblem
    state : DesignState
        Frozen; replaced by a call that changes it, and only once the call has succeeded.
    model : GaussianModel or None
        None until there are projections to learn from.
    """

    def __init__(
        self,
        problem: DesignProblem,
        model: GaussianModel | Learn | None,
        *,
        state: DesignState | None = None,
        resumed: GaussianModel | None = None,
        conditioned: Conditioned | None = None,
    ):
        self.problem = problem
        self.state = DesignState.empty(problem.A.geometry.columns) if state is None else state
        self._learn: Learn | None = None if isinstance(model, GaussianModel) else model
        self.model: GaussianModel | None = model if isinstance(model, GaussianModel) else resumed
        if self.model is None and self._learn is not None and len(self.state.views):
            self.model = self._learn(self.measurements)
        self._given = conditioned

    @property
    def measurements(self) -> Measurements:
        """The measured views as tensors."""
        return measurements_of(self.problem, self.state)

    @property
    def conditioned(self) -> Conditioned:
        """The model given the measured views.

        Raises
        ------
        InputError
            If nothing was told yet that a model could be learned from.
        """
        if self.model is None:
            raise InputError("Nothing has been measured yet; tell the projections of a few pilot angles first.")
        self._given = self._extended(self.state, self.model)
        return self._given

    @property
    def scores(self) -> NDArray[np.float64]:
        """The score of every view now, (V,), in the criterion's unit; measured and forbidden ones included."""
        return self.problem.criterion(self.conditioned).numpy()

    @property
    def available(self) -> NDArray[np.bool_]:
        """The views that can be asked for now, (V,)."""
        return self._available(self.state.spent, ())

    @property
    def predicted_error(self) -> float:
        """Root mean square of the posterior standard deviation over the region, 1/mm (line integrals for a model of rays)."""
        return self._error(self.conditioned)

    def ask(self, n: int = 1, *, pending: ArrayLike = ()) -> Suggestion:
        """The next angles, each chosen as if those before it had been measured; only the log is changed.

        Parameters
        ----------
        n : int
            How many; fewer are given where the budget or the candidates run out.
        pending : array, radians
            Angles asked for earlier and not told yet: they count as measured.

        Raises
        ------
        InputError
            If the budget is spent, no candidate is left, or nothing was told yet.
        """
        if n < 1:
            raise InputError(f"At least one angle must be asked for, got {n}.")
        problem, given, position = self.problem, self.conditioned, self.state.position
        waiting = problem.index(pending).tolist() if np.size(pending) else []
        for view in waiting:
            given, position = given.given(view), float(problem.angles[view])
        spent = self.state.spent + float(problem.doses[waiting].sum())

        def available(so_far: float, picked: list[int]) -> NDArray[np.bool_]:
            return self._available(so_far, [*waiting, *picked])

        first = available(spent, [])
        if not first.any():
            raise InputError(self._why_none(len(waiting)))
        picks = greedy(given, problem, n, available=available, spent=spent, position=position)
        angles, error = problem.angles[picks.views], self._error(given)
        stop, reason = problem.stopping.advice(float(angles[0]), float(picks.gains[0]), problem.criterion.unit, error)
        self._note(Decision("ask", angles, picks.scores, picks.gains, error, self.state.spent, stop, reason))
        return Suggestion(
            angles, picks.views, picks.scores, first, picks.gains, problem.criterion.unit, error=error, stop=stop, reason=reason
        )

    def tell(self, angles: ArrayLike, projections: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Take in projections, condition on them, and learn the model again if that is due.

        Parameters
        ----------
        angles : array, shape (k,) or one number, radians
        projections : array, shape (k, n) or (n,)
            Line integrals.
        weights : array, same shape, optional
            Relative precision of each ray, on one scale for all views; by default what the exposure predicts.

        Raises
        ------
        InputError
            If an angle is no candidate or was told before, or an array has the wrong shape or holds NaN. Nothing is changed.
        """
        problem, old = self.problem, self.state
        views = problem.index(angles)
        y = rays(projections, len(views), problem.A.geometry.columns, "projections")
        if weights is None:
            weights = expected_weights(problem, self.model, self.measurements)[torch.from_numpy(views)].numpy()
        w = weights_of(weights, len(views), problem.A.geometry.columns)
        refuse_repeats(problem, old.views, views)
        state = replace(
            old,
            views=np.concatenate([old.views, views]),
            projections=np.concatenate([old.projections, y]),
            weights=np.concatenate([old.weights, w]),
            spent=old.spent + float(problem.doses[views].sum()),
            position=float(problem.angles[views[-1]]),
        )
        self._take(state, "tell", problem.angles[views], f"{len(views)} projections were taken in.")

    def reject(self, angles: ArrayLike, reason: str = "", *, retry: bool = True) -> None:
        """Take back measured projections that turned out bad, or note exposures that failed; their dose stays spent.

        Parameters
        ----------
        angles : array, radians
        reason : str
            For the log.
        retry : bool
            Whether these angles may be asked for again.
        """
        views, old = self.problem.index(angles), self.state
        kept, failed = ~np.isin(old.views, views), views[~np.isin(views, old.views)]
        state = replace(
            old,
            views=old.views[kept],
            projections=old.projections[kept],
            weights=old.weights[kept],
            banned=old.banned if retry else (*old.banned, *views.tolist()),
            spent=old.spent + float(self.problem.doses[failed].sum()),
            position=float(self.problem.angles[views[-1]]),
        )
        self._take(state, "reject", self.problem.angles[views], reason or f"{len(views)} projections were rejected.")

    def _take(self, state: DesignState, kind: str, angles: NDArray[np.float64], reason: str) -> None:
        """Learn and condition first, so that a failure leaves everything as it was."""
        model = self.model
        if self._learn is not None and len(state.views):
            model = self._learn(measurements_of(self.problem, state))
        renewed = model is not self.model
        if renewed:
            state = replace(state, learned=len(state.views))
        given = None if model is None else self._extended(state, model)
        self.model, self.state, self._given = model, state, given
        self._note(self._plain(kind, angles, reason))
        if renewed and model is not None:
            self._note_learned(model)

    def _extended(self, state: DesignState, model: GaussianModel) -> Conditioned:
        """Condition on what is new, or on everything where the model or an earlier view has changed."""
        given = self._given
        if given is None or model is not self.model or tuple(state.views[: len(given.views)].tolist()) != given.views:
            return condition(self.problem, state, model)
        return condition_on_new(self.problem, given, state, model)

    def _available(self, spent: float, taken: Sequence[int] | NDArray) -> NDArray[np.bool_]:
        """The views that can be asked for when so much is spent and these are taken besides the measured ones."""
        problem = self.problem
        available = problem.allowed
        gone = [*self.state.banned, *taken, *([] if problem.repeat else self.state.views)]
        available[np.array(gone, np.int64)] = False
        if problem.budget is not None:
            available &= spent + problem.doses <= problem.budget * (1 + 1e-9)
        return available

    def _why_none(self, waiting: int) -> str:
        budget, spent = self.problem.budget, self.state.spent
        if budget is not None and self._available(-np.inf, ()).any():
            return f"The dose budget of {budget:g} is exhausted ({spent:g} spent, {waiting} views pending); raise it to go on."
        return f"No candidate is left: all {int(self.problem.allowed.sum())} allowed angles were asked for, told or rejected."

    def _error(self, given: Conditioned) -> float:
        assert self.model is not None
        region = self.problem.region_weights(given.rows.size, self.model.space)
        return float((region @ given.variance.clamp(min=0) / region.sum()).sqrt())

    def _plain(self, kind: str, angles: NDArray[np.float64], reason: str) -> Decision:
        error = float("nan") if self._given is None else self._error(self._given)
        none = np.zeros((0, self.problem.views))
        return Decision(kind, angles, none, np.zeros(0), error, self.state.spent, stop=False, reason=reason)

    def _note_learned(self, model: GaussianModel) -> None:
        values = ", ".join(f"{name} {value:.4g}" for name, value in model.hyperparameters.items())
        self._note(self._plain("learn", np.zeros(0), f"Learned from {self.state.learned} views ({model.note}): {values}."))

    def _note(self, decision: Decision) -> None:
        self.state = replace(self.state, log=(*self.state.log, decision))
