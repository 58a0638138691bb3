"""A design problem: the views there are, what is wanted of them, and the scanner's constraints."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ctuq.design.algebra.criteria import EIG, Criterion
from ctuq.design.algebra.rows import ViewRows
from ctuq.design.constraints import Arc, Exposure, Stopping, Turning, nearest
from ctuq.design.state import DesignState
from ctuq.errors import InputError
from ctuq.tomo.rays.matrix import MatrixRayTransform


@dataclass(frozen=True, eq=False, kw_only=True)
class DesignProblem:
    """What does not change while a design grows.

    Parameters
    ----------
    A : MatrixRayTransform
        Of all V views that may be asked for or told.
    criterion : Criterion
    region : array of bool or float, shape (y, x), optional
        Where the image's variance counts, for the A-optimal gain and the predicted error; None is the whole image.
    askable : array of bool, shape (V,), optional
        Views that may be asked for; the others can only be told (pilot views off the grid). None means all.
    forbidden : tuple of Arc
        Arcs that are never asked for.
    repeat : bool
        Whether a measured view may be asked for and told again.
    exposure : Exposure
    turning : Turning
    budget : float, optional
        Total dose, pilot and failed exposures included.
    stopping : Stopping

    Raises
    ------
    InputError
        If shapes disagree, nothing is left to ask for, or the budget is not positive.
    """

    A: MatrixRayTransform
    criterion: Criterion = EIG
    region: NDArray | None = None
    askable: NDArray[np.bool_] | None = None
    forbidden: tuple[Arc, ...] = ()
    repeat: bool = False
    exposure: Exposure = field(default_factory=Exposure)
    turning: Turning = field(default_factory=Turning)
    budget: float | None = None
    stopping: Stopping = field(default_factory=Stopping)

    def __post_init__(self):
        if self.region is not None and (np.shape(self.region) != self.A.grid.shape or not np.any(self.region)):
            raise InputError(f"The region must have the image's shape {self.A.grid.shape} and at least one pixel.")
        if self.askable is not None and np.shape(self.askable) != (self.views,):
            raise InputError(f"'askable' has {np.size(self.askable)} entries for {self.views} views.")
        if self.budget is not None and not self.budget > 0:
            raise InputError(f"The dose budget must be a positive number, got {self.budget}.")
        self.exposure.doses(self.views)
        if not self.allowed.any():
            raise InputError(f"All {self.views} candidate angles are forbidden; free some arc.")

    @property
    def angles(self) -> NDArray[np.float64]:
        """Of all views, radians, (V,)."""
        return self.A.geometry.angles

    @property
    def views(self) -> int:
        """V."""
        return len(self.angles)

    @property
    def doses(self) -> NDArray[np.float64]:
        """Of all views, (V,)."""
        return self.exposure.doses(self.views)

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """The views that could ever be asked for, (V,)."""
        allowed = np.ones(self.views, bool) if self.askable is None else np.array(self.askable, bool)
        for arc in self.forbidden:
            allowed &= ~arc.contains(self.angles)
        return allowed

    @cached_property
    def rows(self) -> ViewRows:
        """All views as sparse rows over the image's pixels."""
        return ViewRows(self.A.matrix, self.views)

    @property
    def region_weights(self) -> Tensor:
        """The region over the d pixels, float64."""
        if self.region is None:
            return torch.ones(self.A.grid.size, dtype=torch.float64)
        return torch.from_numpy(np.asarray(self.region, np.float64).ravel())

    def index(self, angles: ArrayLike) -> NDArray[np.int64]:
        """The views at these angles (radians).

        Raises
        ------
        InputError
            If an angle is not that of a view.
        """
        return nearest(angles, self.angles)

    def free(
        self, state: DesignState, *, spent: float | None = None, taken: Sequence[int] | NDArray[np.int64] = ()
    ) -> NDArray[np.bool_]:
        """The views that can be asked for, (V,).

        Parameters
        ----------
        state : DesignState
        spent : float, optional
            Dose by then; that of the state by default.
        taken : sequence of int
            Views that are gone besides the measured and the failed ones.
        """
        free = self.allowed
        gone = [*state.banned, *taken, *([] if self.repeat else state.views)]
        free[np.array(gone, np.int64)] = False
        if self.budget is not None:
            free &= (state.spent if spent is None else spent) + self.doses <= self.budget * (1 + 1e-9)
        return free
