"""The designer: asked for angles, told projections; the same for a simulation and at a scanner."""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.design.algebra.conditioning import GivenViews
from ctuq.design.greedy import greedy
from ctuq.design.measurements import condition_on_all, condition_on_new, measurements_of, taken_back, taken_in
from ctuq.design.models.model import GaussianModel, Learn, Measurements
from ctuq.design.problem import DesignProblem
from ctuq.design.state import RAISED, Decision, DesignState, Suggestion, learned
from ctuq.errors import BudgetExhausted, InputError
from ctuq.surroundings import undisturbed
from ctuq.tomo.arrays import as_whole


class Designer:
    """Chooses the next angles.

    Parameters
    ----------
    problem : DesignProblem
    model : GaussianModel or callable
        The model of image and noise; or how it is learned from the measured views, called after every `tell` and `reject` (wrap
        it in `Every` to learn more rarely). A callable that returns the model it returned before changes nothing.
    state : DesignState, optional
        Of an earlier session.
    resumed : GaussianModel, optional
        The model of that session, which is then not learned again at once.
    conditioned : GivenViews, optional
        That model given the first of the state's views, with the weights that they were measured with.
    degrees : bool
        Whether angles are in degrees, counter-clockwise, in all that is given and in what `ask` returns; else in radians.
        ``problem`` and ``state`` are in radians always.

    Attributes
    ----------
    problem : DesignProblem
    state : DesignState
        Frozen; replaced by a call that changes it, and only once the call has succeeded.
    model : GaussianModel or None
        None until there are projections to learn from.
    """

    @undisturbed()
    def __init__(
        self,
        problem: DesignProblem,
        model: GaussianModel | Learn,
        *,
        state: DesignState | None = None,
        resumed: GaussianModel | None = None,
        conditioned: GivenViews | None = None,
        degrees: bool = False,
    ):
        self.problem, self.degrees = problem, degrees
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
    def conditioned(self) -> GivenViews:
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
        return self.problem.free(self.state)

    @property
    def predicted_error(self) -> float:
        """Root mean square of the posterior standard deviation over the region, 1/mm."""
        return self._error(self.conditioned)

    @undisturbed()
    def ask(self, n: int = 1, *, pending: ArrayLike = ()) -> Suggestion:
        """The next angles, each chosen as if those before it had been measured; only the log is changed.

        Parameters
        ----------
        n : int
            How many; fewer are given where the budget or the candidates run out.
        pending : array, radians or degrees
            Angles asked for earlier and not told yet: they count as measured.

        Raises
        ------
        BudgetExhausted
            If there is no dose left.
        InputError
            If no candidate is left, or nothing was told yet.
        """
        if as_whole(n, "The number of angles") < 1:
            raise InputError(f"At least one angle must be asked for, got {n}.")
        problem, given, position = self.problem, self.conditioned, self.state.position
        waiting = problem.index(self._radians(pending)).tolist() if np.size(pending) else []
        for view in waiting:
            given, position = given.given(view), float(problem.angles[view])
        spent = self.state.spent + float(problem.doses[waiting].sum())

        def available(so_far: float, picked: list[int]) -> NDArray[np.bool_]:
            return problem.free(self.state, spent=so_far, taken=[*waiting, *picked])

        first = available(spent, [])
        if not first.any():
            raise self._why_none(len(waiting))
        picks = greedy(given, problem, n, available=available, spent=spent, position=position)
        angles, error = problem.angles[picks.views], self._error(given)
        stop, reason = problem.stopping.advice(float(angles[0]), float(picks.gains[0]), problem.criterion.unit, error)
        self.state = self.state.logged(
            Decision("ask", angles, picks.scores, picks.gains, error, self.state.spent, stop, reason)
        )
        suggestion = Suggestion(
            angles,
            picks.views,
            picks.scores,
            first,
            picks.gains,
            problem.criterion.unit,
            error=error,
            stop=stop,
            reason=reason,
            free=picks.free,
        )
        return suggestion.in_degrees() if self.degrees else suggestion

    @undisturbed()
    def tell(
        self, angles: ArrayLike, projections: ArrayLike, weights: ArrayLike | None = None, *, anyway: bool = False
    ) -> None:
        """Take in projections, condition on them, and learn the model again if that is due.

        Parameters
        ----------
        angles : array, shape (k,) or one number, radians or degrees
        projections : array, shape (k, n) or (n,)
            Line integrals.
        weights : array, same shape, optional
            Relative precision of each ray, on one scale for all views; by default what the exposure predicts.
        anyway : bool
            Take in views inside of forbidden arcs, too.

        Raises
        ------
        InputError
            If an angle is no candidate, lies in a forbidden arc or was told before, or an array has the wrong shape or holds
            NaN. Nothing is changed.
        """
        given = self._radians(angles)
        self._take(taken_in(self.problem, self.state, given, projections, weights, model=self.model, anyway=anyway))

    @undisturbed()
    def reject(self, angles: ArrayLike, reason: str = "", *, retry: bool = True) -> None:
        """Take back measured projections that turned out bad, or note exposures that failed; their dose stays spent.

        Parameters
        ----------
        angles : array, radians or degrees
        reason : str
            For the log.
        retry : bool
            Whether these angles may be asked for again.
        """
        self._take(taken_back(self.problem, self.state, self._radians(angles), reason, retry=retry))

    def _radians(self, angles: ArrayLike) -> ArrayLike:
        return np.deg2rad(np.asarray(angles, np.float64)) if self.degrees else angles

    def _take(self, state: DesignState) -> None:
        """Learn and condition first, so that a failure leaves everything as it was."""
        model = self.model
        if self._learn is not None and len(state.views):
            model = self._learn(measurements_of(self.problem, state))
        renewed = model is not self.model
        given = None if model is None else self._extended(state, model)
        if given is not None and model is not None:
            error = self._error(given)
            state = replace(state, log=(*state.log[:-1], replace(state.log[-1], error=error)))
            if renewed:
                state = learned(state, len(state.views), model.note, model.hyperparameters, error)
        self.model, self.state, self._given = model, state, given

    def _extended(self, state: DesignState, model: GaussianModel) -> GivenViews:
        """Condition on what is new, or on everything where the model or an earlier view has changed."""
        given = self._given
        if given is None or model is not self.model or tuple(state.views[: len(given.views)].tolist()) != given.views:
            return condition_on_all(self.problem, state, model)
        return condition_on_new(self.problem, given, state, model)

    def _why_none(self, waiting: int) -> InputError:
        budget, spent = self.problem.budget, self.state.spent
        if budget is not None and self.problem.free(self.state, spent=-np.inf).any():
            told = f"The dose budget of {budget:g} is exhausted ({spent:g} spent, {waiting} views pending)"
            return BudgetExhausted(f"{told}; {RAISED}.")
        count = int(self.problem.allowed.sum())
        return InputError(f"No candidate is left: all {count} allowed angles were asked for, told or rejected.")

    def _error(self, given: GivenViews) -> float:
        region = self.problem.region_weights
        return float((region @ given.variance.clamp(min=0) / region.sum()).sqrt())
