"""A session that is asked and told by dictionaries, as gpCAM's optimizer and its instrument functions are."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.design.adapters.shared import in_degrees
from ctuq.design.session.session import Session

Points = list[dict[str, Any]]


class AskTell:
    """The loop ``new = design.ask(n)["x"]; design.tell(new, measure(new))``; positions are the scanner's degrees, (n, 1).

    Parameters
    ----------
    session : Session or path
    """

    def __init__(self, session: Session | str | os.PathLike):
        self.session = in_degrees(session)
        self._scale: float | None = None

    def ask(self, n: int = 1, *, pending: ArrayLike = ()) -> dict[str, Any]:
        """The next positions.

        Returns
        -------
        dict
            "x" (n, 1), "f_a(x)" the gain of each (empty for pilot views), "opt_obj" None, and "stop" and "reason", which gpCAM
            has not.
        """
        suggestion = self.session.ask(n, pending=np.ravel(pending))
        x, told = suggestion.angles.reshape(-1, 1), suggestion.to_dict()
        return {"x": x, "f_a(x)": suggestion.gains, "opt_obj": None, "stop": told["stop"], "reason": told["reason"]}

    def tell(self, x: ArrayLike, y: ArrayLike, noise_variances: ArrayLike | None = None) -> None:
        """Take in what was measured.

        Parameters
        ----------
        x : array, shape (n, 1) or (n,), degrees
        y : array, shape (n, columns)
            Line integrals: the value at a position is a whole projection.
        noise_variances : array, shape (n, columns), optional
        """
        angles = np.asarray(x, np.float64).reshape(-1)
        rays = np.asarray(y, np.float32).reshape(len(angles), -1)
        self.session.tell(angles, rays, None if noise_variances is None else self._precision(noise_variances, rays.shape))

    def measure(self, instrument: Callable[[Points], Points], n: int = 1) -> Points:
        """One round with an instrument function, which fills in "y_data" and, if it knows it, "noise variance" of each point.

        Parameters
        ----------
        instrument : callable
            Is given points with "x_data" (1,), and returns them.
        n : int
        """
        blank: Points = [{"x_data": x, "y_data": None, "noise variance": None} for x in self.ask(n)["x"]]
        points = instrument(blank)
        variances = [point.get("noise variance") for point in points]
        known = None if any(v is None for v in variances) else np.array(variances, np.float64)
        self.tell(np.stack([point["x_data"] for point in points]), np.stack([point["y_data"] for point in points]), known)
        return points

    def _precision(self, variances: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Relative precision on one scale for all views: that of the first told is 1 in the mean of its variances."""
        values = np.broadcast_to(np.asarray(variances, np.float64), shape)
        if self._scale is None:
            self._scale = float(values.mean())
        return self._scale / values
