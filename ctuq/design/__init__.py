"""Which angle next: criteria, exact greedy conditioning, priors, strategies, and a designer that is asked and told.

The posterior covariance of a Gaussian-linear model does not depend on measured values, so a whole sequence of views is chosen
by dense algebra, without a product with a network.

* `DesignProblem`: the ray transform of all views that may be asked for or told, the criterion (`EIG`, `DIAGONAL_EIG`, `ESE`,
  `A_OPTIMAL`, by name in `CRITERIA`), and the scanner's constraints: `Arc`, `Exposure`, `Turning`, `Stopping`, a dose budget.
  `CandidateGrid(...).angles` and `candidate_transform` make the ray transform.
* A model of image and noise: a `GaussianModel`, or a callable that learns one from `Measurements`: `Isotropic()`, `Matern()`,
  `Edges()`, `LinearisedDIP(LinDIPOptions(...))`, `Sum(...)` of these, by name from `learner`; `Every(learn, k)` learns it again
  every k views.
* `Designer(problem, model)`: ``tell(angles, projections, weights=None)`` (pilot views first), ``ask(n, pending=())`` gives a
  `Suggestion`, ``reject(angles)``, ``scores``, ``predicted_error``, ``state`` (a frozen `DesignState` of
  plain arrays with the log of `Decision`). ``Designer(problem, model, state=..., resumed=...)`` goes on where a state was left.
* `Session(path)`: a designer in a file, for a scanner: `Session.start` with a geometry and `Settings`, ``ask``, ``tell``,
  ``reject``, ``learn``; every call saves, and several processes can use one.
* `ctuq.design.strategies`: `equidistant`, `nested`, `golden`, `random`, `exhaustive`, and `grow`, which runs a designer.

Angles are in radians, or in degrees with ``degrees=True`` of `Designer` and `Session`; views are indices into
``problem.angles``.
"""

from typing import TYPE_CHECKING

from ctuq.late import attach

if TYPE_CHECKING:
    from ctuq.design.algebra.covariance import DenseCovariance
    from ctuq.design.algebra.criteria import A_OPTIMAL, CRITERIA, DIAGONAL_EIG, EIG, ESE, Criterion, box_region
    from ctuq.design.constraints import Arc, CandidateGrid, Exposure, Stopping, Turning, candidate_transform
    from ctuq.design.designer import Designer
    from ctuq.design.models.classical import Isotropic, Matern
    from ctuq.design.models.edges import Edges
    from ctuq.design.models.learners import PRIORS, Sum, learner
    from ctuq.design.models.lindip import LinDIPOptions, LinearisedDIP
    from ctuq.design.models.model import Every, GaussianModel, Learn, Measurements
    from ctuq.design.problem import DesignProblem
    from ctuq.design.session.file import Settings
    from ctuq.design.session.session import Session
    from ctuq.design.state import Decision, DesignState, Suggestion
    from ctuq.design.strategies import grow

__all__ = [
    "A_OPTIMAL",
    "CRITERIA",
    "DIAGONAL_EIG",
    "EIG",
    "ESE",
    "PRIORS",
    "Arc",
    "CandidateGrid",
    "Criterion",
    "Decision",
    "DenseCovariance",
    "DesignProblem",
    "DesignState",
    "Designer",
    "Edges",
    "Every",
    "Exposure",
    "GaussianModel",
    "Isotropic",
    "Learn",
    "LinDIPOptions",
    "LinearisedDIP",
    "Matern",
    "Measurements",
    "Session",
    "Settings",
    "Stopping",
    "Suggestion",
    "Sum",
    "Turning",
    "box_region",
    "candidate_transform",
    "grow",
    "learner",
]

_HOMES = {
    "ctuq.design.algebra.covariance": ("DenseCovariance",),
    "ctuq.design.algebra.criteria": ("A_OPTIMAL", "CRITERIA", "DIAGONAL_EIG", "EIG", "ESE", "Criterion", "box_region"),
    "ctuq.design.constraints": ("Arc", "CandidateGrid", "Exposure", "Stopping", "Turning", "candidate_transform"),
    "ctuq.design.designer": ("Designer",),
    "ctuq.design.models.classical": ("Isotropic", "Matern"),
    "ctuq.design.models.edges": ("Edges",),
    "ctuq.design.models.learners": ("PRIORS", "Sum", "learner"),
    "ctuq.design.models.lindip": ("LinDIPOptions", "LinearisedDIP"),
    "ctuq.design.models.model": ("Every", "GaussianModel", "Learn", "Measurements"),
    "ctuq.design.problem": ("DesignProblem",),
    "ctuq.design.session.file": ("Settings",),
    "ctuq.design.session.session": ("Session",),
    "ctuq.design.state": ("Decision", "DesignState", "Suggestion"),
    "ctuq.design.strategies": ("grow",),
}


# Imported on first use: a session's file can be read, and its next angles told, without waiting for torch.
__getattr__, __dir__ = attach(__name__, _HOMES)
