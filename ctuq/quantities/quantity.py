"""One measured quantity: its value, how sure it is, and where the uncertainty comes from, as metrology writes it (GUM)."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from statistics import NormalDist
from typing import Any

from ctuq.errors import InputError

LEVEL = 0.95


@dataclass(frozen=True, repr=False)
class Quantity:
    """A value with its uncertainty.

    Parameters
    ----------
    name : str
        What was measured, such as "mean of circle:0,0,5".
    value : float
    standard_uncertainty : float
        One standard deviation, in the unit of the value.
    coverage_factor : float
        Half the interval over the standard uncertainty; NaN where the interval is not symmetric.
    interval : tuple of float
    level : float
        Probability that the interval is meant to hold, such as 0.95.
    unit : str
        "" for pure numbers.
    draws : int
        How many images were drawn from the posterior; 0 where none is needed.
    monte_carlo_error : float
        Relative error of the standard uncertainty by these draws, of a probability its own standard error; 0 where nothing is
        drawn.
    budget : mapping of str to float
        Variance by its source; sums to the square of the standard uncertainty.
    notes : tuple of str
        One sentence each: what to know before trusting it.
    """

    name: str
    value: float
    standard_uncertainty: float
    coverage_factor: float
    interval: tuple[float, float]
    level: float = LEVEL
    unit: str = ""
    draws: int = 0
    monte_carlo_error: float = 0.0
    budget: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Quantity: {self}>"

    def __str__(self) -> str:
        low, high = self.interval
        if math.isnan(low):
            by_draws = f" (± {self.monte_carlo_error:.1g} by {self.draws} draws)" if self.draws else ""
            return f"{self.name}: {self.value:.4g}{by_draws}"
        unit = f" {self.unit}" if self.unit else ""
        return (
            f"{self.name}: {self.value:.4g} ± {self.standard_uncertainty:.2g}{unit} "
            f"({100 * self.level:g} %: {low:.4g} to {high:.4g})"
        )

    def scaled(self, factor: float, unit: str, *, name: str | None = None) -> "Quantity":
        """The same times a positive number that is known exactly, in another unit."""
        return replace(
            self,
            name=self.name if name is None else name,
            value=factor * self.value,
            standard_uncertainty=factor * self.standard_uncertainty,
            interval=(factor * self.interval[0], factor * self.interval[1]),
            unit=unit,
            budget={source: factor**2 * part for source, part in self.budget.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def checked_level(level: float) -> float:
    """A probability between 0.5 and 1.

    Raises
    ------
    InputError
    """
    if not 0.5 <= level < 1:
        raise InputError(f"The level of an interval is a probability from 0.5 to below 1, such as 0.95, got {level}.")
    return float(level)


def _normal_factor(level: float) -> float:
    """Standard deviations on each side of a Gaussian's mean that hold the probability ``level``."""
    return NormalDist().inv_cdf((1 + level) / 2)


def _normal_share(z: float) -> float:
    """Probability that a standard normal value lies below ``z``."""
    return math.erfc(-z / math.sqrt(2)) / 2


def probability_of(quantity: Quantity, limit: float, *, above: bool, name: str) -> Quantity:
    """Probability that a quantity whose error is Gaussian lies above, or below, a number."""
    z = (quantity.value - limit) / max(quantity.standard_uncertainty, 1e-300)
    value, none = _normal_share(z if above else -z), math.nan
    return Quantity(name, value, math.sqrt(value * (1 - value)), none, (none, none), none, notes=quantity.notes)


def counted_probability(name: str, hits: int, draws: int, *, notes: tuple[str, ...] = ()) -> Quantity:
    """A probability by the share of draws in which something is so.

    Its standard error is that of two hits and two misses more (Agresti and Coull 1998), which is not 0 where all draws agree.
    """
    share, careful = hits / draws, (hits + 2) / (draws + 4)
    error = math.sqrt(careful * (1 - careful) / (draws + 4))
    sd, none = math.sqrt(share * (1 - share)), math.nan
    return Quantity(name, share, sd, none, (none, none), none, draws=draws, monte_carlo_error=error, notes=notes)


def gaussian_quantity(
    name: str,
    value: float,
    variance: float,
    *,
    level: float,
    unit: str,
    budget: Mapping[str, float],
    **rest: Any,
) -> Quantity:
    """A quantity whose error is Gaussian."""
    sd, factor = math.sqrt(max(variance, 0.0)), _normal_factor(level)
    interval = (value - factor * sd, value + factor * sd)
    return Quantity(name, value, sd, factor, interval, level, unit, budget=dict(budget), **rest)
