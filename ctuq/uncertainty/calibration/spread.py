"""How sure another program is of its image: its samples, a covariance, or a standard deviation of each pixel."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh

from ctuq.errors import InputError
from ctuq.tomo.arrays import as_array
from ctuq.uncertainty.results.kept_covariance import cosine_waves, waves_of

_FEW = 30
_ALIKE = 1e-5
_ROUNDING = 1e-10


@dataclass(frozen=True, eq=False)
class Spread:
    """Covariance of an image in one of three ways.

    Parameters
    ----------
    kind : {"samples", "covariance", "std"}
    shape : tuple of int
        (y, x).
    values : array of float64
        "samples": deviations from their mean over the root of their number less one, (n, pixels); "covariance": (pixels,
        pixels); "std": (pixels,), of pixels that are independent.
    mean : array, shape (y, x), optional
        Of samples.
    along : mapping of str to array
        Of as many samples as the image has rows and columns, their mean if another axis numbers them.
    """

    kind: str
    shape: tuple[int, ...]
    values: NDArray[np.float64]
    mean: NDArray[np.float64] | None = None
    along: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Any, shape: tuple[int, ...]) -> "Spread":
        """From what a program gives.

        Parameters
        ----------
        given : array, number or object with samples
            Samples (n, y, x) or (n, y * x); a covariance (y * x, y * x); a standard deviation (y, x) or one for all pixels; or
            an object whose ``samples`` are (y * x, n), as CUQIpy's.
        shape : tuple of int

        Raises
        ------
        InputError
            If it is none of these.
        """
        if hasattr(given, "samples"):
            given = np.asarray(given.samples).T
        values, pixels = as_array(given, "The samples, covariance or standard deviations hold"), int(np.prod(shape))
        if not np.isfinite(values).all():
            raise InputError("The samples, covariance or standard deviations hold NaN or infinite values; repair them first.")
        if values.ndim == 0 or values.shape == shape:
            return cls("std", shape, _positive(np.broadcast_to(values, shape).reshape(-1).copy()))
        if values.shape == (pixels, pixels):
            return cls("covariance", shape, _symmetric(values))
        if values.ndim > 1 and values.shape[1:] in (shape, (pixels,)):
            cube = values.ndim == 3 and len(set(values.shape)) == 1
            along = {"last": values.mean(axis=2), "second": values.mean(axis=1)} if cube else {}
            mean = values.mean(axis=0).reshape(shape)
            return cls("samples", shape, _deviations(values.reshape(len(values), pixels)), mean, along)
        y, x = shape
        raise InputError(
            f"An array of shape {values.shape} is no account of an image of {y} x {x} pixels; give samples (n, {y}, {x}), a "
            f"covariance ({pixels}, {pixels}), a standard deviation ({y}, {x}), or one number."
        )

    def variance(self) -> NDArray[np.float64]:
        """Of each pixel, (pixels,)."""
        if self.kind == "samples":
            return np.sum(self.values**2, axis=0)
        return np.diag(self.values).copy() if self.kind == "covariance" else self.values**2

    def times(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The covariance times rows (k, pixels)."""
        if self.kind == "samples":
            return (x @ self.values.T) @ self.values
        return x @ self.values if self.kind == "covariance" else x * self.values**2

    @property
    def error(self) -> float:
        """Relative error of a standard deviation by the number of samples; 0 of the others."""
        return (2 * max(len(self.values) - 1, 1)) ** -0.5 if self.kind == "samples" else 0.0

    @property
    def doubts(self) -> tuple[str, ...]:
        """What to know of it."""
        if self.kind == "std":
            return (
                "Standard deviations alone say nothing of how errors of pixels go together: pixels count as independent, and "
                "intervals of means over regions are too short where they are not.",
            )
        if self.kind == "samples" and len(self.values) < _FEW:
            n = len(self.values)
            return (f"{n} samples know a standard deviation only to {100 * self.error:.0f} %; {_FEW} or more are better.",)
        return ()

    def directions(self, most: int) -> tuple[NDArray[np.float32], int]:
        """Images whose sum of outer products is the covariance, or its best part, (k, y, x), and the waves that they hold.

        See `ctuq.uncertainty.results.kept_covariance`; of few samples they are the samples' deviations, exactly.
        """
        if self.kind == "std" or most == 0:
            return np.zeros((0, *self.shape), np.float32), 0
        if self.kind == "samples" and len(self.values) <= most:
            return self.values.reshape(-1, *self.shape).astype(np.float32), 0
        pixels = int(np.prod(self.shape))
        waves = waves_of(min(most, pixels), self.shape)
        first = _held(cosine_waves(self.shape, waves), self)
        more = min(most, pixels - 1) - len(first)

        def left(x: NDArray) -> NDArray:
            return self.times(x[None])[0] - first.T @ (first @ x)

        rest = LinearOperator((pixels, pixels), matvec=left, dtype=np.float64)  # pyright: ignore[reportCallIssue]
        start = np.random.default_rng(0).standard_normal(pixels)
        values, vectors = eigsh(rest, k=more, v0=start)
        second = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
        return np.concatenate([first, second[::-1]]).reshape(-1, *self.shape).astype(np.float32), waves


def _held(waves: NDArray[np.float64], spread: Spread) -> NDArray[np.float64]:
    """Rows whose outer products do to these waves all that the covariance does."""
    pushed = spread.times(waves)
    values, vectors = np.linalg.eigh(pushed @ waves.T)
    kept = values > _ROUNDING * max(float(values.max(initial=0)), 1e-300)
    return (vectors[:, kept] / np.sqrt(values[kept])).T @ pushed


def _positive(std: NDArray[np.float64]) -> NDArray[np.float64]:
    if std.min() < 0 or std.max() == 0:
        raise InputError(
            f"Standard deviations are positive numbers of 1/mm; the smallest is {std.min():g}, the largest {std.max():g}."
        )
    return std


def _symmetric(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    lowest, top = float(np.diag(covariance).min()), float(np.abs(covariance).max())
    gap = float(np.abs(covariance - covariance.T).max())
    if lowest < 0 or top == 0 or gap > _ALIKE * top:
        raise InputError(
            f"This is no covariance: its smallest variance is {lowest:.3g}, and it is off its transpose by {gap:.3g} (of "
            f"{top:.3g})."
        )
    return (covariance + covariance.T) / 2


def _deviations(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    n = len(samples)
    if n < 2:
        raise InputError(f"{n} sample{'' if n == 1 else 's'} cannot tell a spread; give 2 or more, better {_FEW}.")
    deviations = samples - samples.mean(axis=0)
    # The mean of equal numbers is off by rounding.
    if np.abs(deviations).max() <= _ROUNDING * np.abs(samples).max():
        raise InputError(f"All {n} samples are the same image, which would be known exactly; give draws that differ.")
    return deviations / np.sqrt(n - 1)
