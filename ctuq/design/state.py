"""What a design has come to: plain values that can be written to a file and taken up again."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.text import first_of

RAISED = (
    "raise it to go on: ctuq design tell SESSION.h5 --dose-budget X, in Python session.allow(X), or for a Designer a problem "
    "with a larger budget"
)
"""How whoever has spent a dose budget allows more."""
_MOST_SHOWN = 4


@dataclass(frozen=True, eq=False)
class Decision:
    """One entry of the log.

    Parameters
    ----------
    kind : {"ask", "pilot", "tell", "reject", "learn", "budget"}
    angles : array of float64, shape (n,), radians
        What was asked, told or rejected.
    scores : array of float64, shape (n, V)
        For "ask", of every view before each pick, in the criterion's unit; otherwise (0, 0).
    gains : array of float64, shape (n,)
        For "ask", the score of each pick; otherwise empty.
    error : float
        Predicted root mean square error before, 1/mm; NaN where unknown.
    spent : float
        Dose spent so far.
    stop : bool
        For "ask", whether the advice is to stop.
    reason : str
        One sentence.
    time : str
        When a session's file got it, in UTC as ISO 8601; empty of a designer in memory.
    """

    kind: str
    angles: NDArray[np.float64]
    scores: NDArray[np.float64]
    gains: NDArray[np.float64]
    error: float
    spent: float
    stop: bool
    reason: str
    time: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Suggestion:
    """The answer to ``ask``.

    Parameters
    ----------
    angles : array of float64, shape (n,), radians
        In the order they were picked; in the scanner's degrees where ``degrees`` says so.
    views : array of int, shape (n,)
    scores : array of float64, shape (n, V)
        Of every view before each pick, forbidden and measured ones included.
    available : array of bool, shape (V,)
        The views that could be picked first.
    gains : array of float64, shape (n,)
        The score of each pick, given those before it.
    unit : str
        Of scores and gains.
    error : float
        Predicted root mean square error of the region now, 1/mm.
    stop : bool
    reason : str
        Why to go on or stop, with the figures.
    free : array of bool, shape (n, V)
        The views that could be picked at each pick; without rows for pilot views, and of an older file.
    degrees : bool
        Whether the angles are in degrees, as the scanner counts them.
    """

    angles: NDArray[np.float64]
    views: NDArray[np.int64]
    scores: NDArray[np.float64]
    available: NDArray[np.bool_]
    gains: NDArray[np.float64]
    unit: str
    error: float
    stop: bool
    reason: str
    free: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))
    degrees: bool = False

    def __repr__(self) -> str:
        angles = first_of([f"{angle:.6g}°" if self.degrees else f"{angle:.4g}" for angle in self.angles], _MOST_SHOWN) or "none"
        told = first_of([f"{gain:.3g}" for gain in self.gains], _MOST_SHOWN)
        gains = f"gains {told} {self.unit}" if told else "no gains yet"
        advice = "the advice is to stop" if self.stop else "go on"
        return f"<Suggestion: {angles}{'' if self.degrees else ' rad'}; {gains}; {advice}>"

    def free_at(self, pick: int) -> NDArray[np.bool_]:
        """The views that could be picked at this pick, (V,)."""
        if pick < len(self.free):
            return self.free[pick]
        left = self.available.copy()
        left[self.views[:pick]] = False
        return left

    def first(self, count: int) -> "Suggestion":
        """The first so many of its picks."""
        parts = {name: getattr(self, name)[:count] for name in ("angles", "views", "scores", "gains", "free")}
        return replace(self, **parts)

    def in_degrees(self, sense: int = 1) -> "Suggestion":
        """The same as a scanner counts its angles that turns in this sense: 1, or -1 for clockwise."""
        if self.degrees:
            return self
        return replace(
            self, angles=degrees_of(self.angles, sense), reason=reworded(self.reason, self.angles, sense), degrees=True
        )

    def to_dict(self, sense: int = 1) -> dict[str, Any]:
        """Plain values for JSON and other programs.

        Parameters
        ----------
        sense : int
            -1 where the scanner counts its angles clockwise.

        Returns
        -------
        dict
            "angles_deg", "gains" and "free" (how many views could be picked) by pick, "unit" of the gains, "predicted_error" in
            1/mm (None where unknown), "stop" and "reason".
        """
        told = self.in_degrees(sense)
        return {
            "angles_deg": told.angles.tolist(),
            "gains": self.gains.tolist(),
            "free": [int(self.free_at(pick).sum()) for pick in range(len(self.views))],
            "unit": self.unit,
            "predicted_error": float(self.error) if np.isfinite(self.error) else None,
            "stop": bool(self.stop),
            "reason": told.reason,
        }


def degrees_of(angles: ArrayLike, sense: int = 1) -> NDArray[np.float64]:
    """Radians in degrees as a scanner counts them that turns in this sense."""
    # Adding 0 makes the -0 of a clockwise scanner 0.
    return np.asarray(sense * np.round(np.rad2deg(np.asarray(angles, np.float64)), 9) + 0.0, np.float64)


def reworded(sentence: str, angles: ArrayLike, sense: int) -> str:
    """A sentence about these angles (radians), with their degrees as the scanner counts them."""
    if sense < 0:
        for angle in np.asarray(angles, np.float64):
            sentence = sentence.replace(f"{np.rad2deg(angle):g} degrees", f"{float(degrees_of(angle, sense)):g} degrees")
    return sentence


@dataclass(frozen=True, eq=False)
class DesignState:
    """Everything a designer has been told, and the log.

    Parameters
    ----------
    views : array of int, shape (k,)
        The measured views, in order.
    projections, weights : array of float32, shape (k, n)
        Their line integrals, and the relative precision of each ray.
    banned : tuple of int
        Views that failed and shall not be asked for again.
    spent : float
        Dose, failed exposures included.
    position : float, optional
        Where the stage stands, radians.
    learned : int
        How many of the views the present model was learned from.
    log : tuple of Decision
    """

    views: NDArray[np.int64]
    projections: NDArray[np.float32]
    weights: NDArray[np.float32]
    banned: tuple[int, ...] = ()
    spent: float = 0.0
    position: float | None = None
    learned: int = 0
    log: tuple[Decision, ...] = ()

    @classmethod
    def empty(cls, rays: int) -> "DesignState":
        """Nothing measured, views of ``rays`` rays."""
        nothing = np.zeros((0, rays), np.float32)
        return cls(np.zeros(0, np.int64), nothing, nothing)

    def logged(self, decision: Decision) -> "DesignState":
        """The same with one more entry in the log."""
        return replace(self, log=(*self.log, decision))

    def noted(self, kind: str, reason: str, angles: ArrayLike = (), error: float = float("nan")) -> "DesignState":
        """The same with an entry in the log that nothing was suggested by."""
        told, none = np.asarray(angles, np.float64), np.zeros(0)
        return self.logged(Decision(kind, told, np.zeros((0, 0)), none, error, self.spent, stop=False, reason=reason))


def learned(state: DesignState, views: int, note: str, values: Mapping[str, float], error: float) -> DesignState:
    """The state with a model that was learned from so many of its views, and what it learned in the log."""
    told = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    return replace(state, learned=views).noted("learn", f"Learned from {views} views ({note}): {told}.", error=error)
