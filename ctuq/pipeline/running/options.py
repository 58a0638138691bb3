"""What a user can choose, how it is recorded, and who is told of progress."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from dataclasses import field as of_default
from typing import Any

import numpy as np

from ctuq.errors import InputError
from ctuq.pipeline.running.checks import (
    MOST_ITERATIONS,
    MOST_SAMPLES,
    MOST_SEED,
    MOST_THREADS,
    check_choice,
    check_errors,
    check_field,
    check_flags,
    check_iterations,
    check_whole,
)
from ctuq.progress import Progress
from ctuq.recon import CLASSICAL
from ctuq.recon.dip import DIPOptions
from ctuq.systematics.catalogue import ANY, DEFAULT, MATERIALS, wishes
from ctuq.tomo.geometry import MOST_PIXELS
from ctuq.uncertainty.model.factor import PRIORS
from ctuq.uncertainty.restricted import OF_WEIGHTS
from ctuq.versions import versions_of

__all__ = ["METHODS", "Progress", "ReconstructOptions", "flat_settings", "options_from", "versions_of_libraries"]

METHODS = ("dip", *CLASSICAL)
_SIMPLE = ("constant", "noise", "bootstrap")
KINDS: dict[str, tuple[str, ...]] = {
    "dip": (*OF_WEIGHTS, "diagonal", "ensemble", "dropout", "sgld", *_SIMPLE),
    "tv": ("edges", "gmrf", "matern", *_SIMPLE),
    **dict.fromkeys(("fbp", "sirt", "cgls"), _SIMPLE),
}
"""Kinds of error bars by method."""
DEFAULT_BARS = {"dip": "laplace", "tv": "edges"}
"""Which of them is made where none is named; the other methods then have none."""
_WHOLE = {
    "size": (8, MOST_PIXELS),
    "samples": (0, MOST_SAMPLES),
    "directions": (0, MOST_SAMPLES),
    "calibration_views": None,  # the scan says how many it can spare
    "seed": (0, MOST_SEED),
    "iterations": (1, MOST_ITERATIONS),
    "threads": (0, MOST_THREADS),
}
_LIBRARIES = ("ctuq", "torch", "numpy", "scipy", "astra-toolbox", "odl", "h5py", "scikit-image")


@dataclass(frozen=True)
class ReconstructOptions:
    """Options of a reconstruction; the defaults are meant for every scan.

    Parameters
    ----------
    method : str
        "dip", "fbp", "sirt", "cgls" or "tv"; "dip" and "tv" have error bars.
    size : int
        Pixels along x and y.
    field : float, "all" or "common", optional
        Width of the image in mm; or that of all rays; or of the circle about the axis that every view sees. By default the
        scan's own grid, or that circle with as much around it as the object's shadow reaches (`ctuq.tomo.field`).
    uncertainty : bool or str
        False leaves error bars out; a name takes that kind of them, of those that the method has (`KINDS`); True the usual one:
        the network's linearised Laplace of "dip", a Gaussian edge prior of "tv", none of the others.
    samples : int
        Posterior samples to keep.
    directions : int
        Most images to keep the covariance in for later questions (`Result.covariance`), in 64 MiB at most; 0 keeps none.
    calibrate : bool
        Hold views out of the fit and learn the scales of the error bars from them.
    calibration_views : int, optional
        How many; by default `ctuq.recon.holdout.default_views`.
    prior : str
        "isotropic", "layerwise", "filter" or "g".
    variation : float
        Strength of the TV hyperprior; 0 leaves it out.
    systematics : str
        What the scanner may do wrong: "none", "default" (beam hardening, unless the scan's beam is known to be
        monochromatic, and, but of arcs, the rotation axis and gains of detector columns), "all" or names with or without a
        prior width, such as "axis,hardening=0.1" (`ctuq.systematics.catalogue`).
    material : str
        "any", or "uniform" for an object that is known to be of one material: its rays then tell beam hardening, which is
        taken out of them (`ctuq.pipeline.material`).
    device : str
        "auto" takes a GPU if there is one.
    seed : int
    iterations : int, optional
        Of SIRT and TV (200 by default) and, at most, of CGLS (50); those of the deep image prior are in ``dip``.
    threads : int, optional
        Processor threads of the fit and what follows; 0 measures whether one or all are quicker. By default as torch is set.
    dip : DIPOptions
    """

    method: str = "dip"
    size: int = 128
    field: float | str | None = None
    uncertainty: bool | str = True
    samples: int = 64
    directions: int = 192
    calibrate: bool = True
    calibration_views: int | None = None
    prior: str = "isotropic"
    variation: float = 0.0
    systematics: str = DEFAULT
    material: str = ANY
    device: str = "auto"
    seed: int = 0
    iterations: int | None = None
    threads: int | None = None
    dip: DIPOptions = of_default(default_factory=DIPOptions)

    def __post_init__(self):
        check_choice("method", self.method, METHODS)
        check_choice("material", self.material, MATERIALS)
        _refuse_other_bars(self.method, self.uncertainty)
        check_choice("prior", self.prior, PRIORS)
        _refuse_without_bars(self)
        check_whole(self, _WHOLE)
        check_iterations(self.method, self.iterations)
        check_flags(self, "calibrate")
        check_field(self.field)
        if not 0 <= self.variation < math.inf:
            raise InputError(f"The strength of the TV hyperprior must be 0 or a positive number, got {self.variation}.")

    @property
    def steps(self) -> dict[str, Any]:
        """What a classical method is given beside its rays."""
        return {} if self.iterations is None else {"iterations": self.iterations}

    @property
    def bars(self) -> str | None:
        """Which of `KINDS` of error bars are made; None for none."""
        if not self.uncertainty:
            return None
        return self.uncertainty if isinstance(self.uncertainty, str) else DEFAULT_BARS.get(self.method)


def _refuse_other_bars(method: str, kind: bool | str) -> None:
    if isinstance(kind, str) and kind not in KINDS[method]:
        raise InputError(f"There are no error bars {kind!r} of the method {method}, which has {', '.join(KINDS[method])}.")


def _refuse_without_bars(options: ReconstructOptions) -> None:
    if options.bars == "diagonal" and options.prior == "filter":
        raise InputError("Error bars of the kind diagonal take independent weights; take the prior isotropic, layerwise or g.")
    check_errors(wishes(options.systematics), all_of=options.bars in OF_WEIGHTS, hidden=options.bars is not None)


def options_from(method: str, settings: Mapping, beside: Sequence[str] = ()) -> ReconstructOptions:
    """Options from keyword arguments; unknown names are refused, and told which there are, those beside the options too."""
    known = {f.name for f in fields(ReconstructOptions)}
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise InputError(f"There is no option {unknown[0]!r}; there are {', '.join(sorted(known.union(beside)))}.")
    return ReconstructOptions(method=method, **settings)


def flat_settings(options: Any) -> dict[str, str | float | int]:
    """Every option of a dataclass by its dotted name, for the record."""
    flat: dict[str, str | float | int] = {}

    def put(prefix: str, values: dict) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                put(f"{prefix}{name}.", value)
            else:
                plain = value.item() if isinstance(value, np.generic) else value
                flat[prefix + name] = plain if isinstance(plain, str | float | int) else str(value)

    put("", asdict(options))
    return flat


def versions_of_libraries() -> dict[str, str]:
    """Versions of ctuq and of what it computes with."""
    return versions_of(*_LIBRARIES)
