"""A result with a covariance: whose its variance is, by the scan that it keeps."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ctuq.quantities.budget import VarianceBudget
from ctuq.systematics.catalogue import KINDS
from ctuq.uncertainty.results.contents import Contents
from ctuq.uncertainty.results.questions import Questions


class Measured(Questions, Contents):
    """A result that answers questions, with the variance of each by its source."""

    def split(
        self, functional: NDArray[np.float64], resolved: NDArray[np.float64], variances: tuple[float, float]
    ) -> dict[str, float]:
        """Variance of a linear quantity by its source, see `ctuq.quantities.budget.VarianceBudget`.

        What errors have that no ray tells is known for itself, and the rest is split.
        """
        hidden = {name: along**2 for name, along in self.hidden_along(functional).items()}
        total = variances[0] - sum(hidden.values())
        grown = self._grown
        if np.ndim(grown):
            # The calibrated covariance is T P T: of w / T it tells w P w, and T^-1 times what it does to that is P w.
            functional = functional / grown
            (pushed,), (resolved,) = self.pushed(functional[None])
            variances = (float(np.sum(functional * pushed)), float(np.sum(functional * resolved)))
        for name, along in self.hidden_along(functional).items():
            variances = (variances[0] - along**2, variances[1] - along**2)
            resolved = resolved - along * self.effects[name]
        if np.ndim(grown):
            return self._budget(resolved / grown, variances, total) | hidden
        scale = float(grown) ** 2
        return self._budget(resolved / scale, (variances[0] / scale, variances[1] / scale), total) | hidden

    @property
    def instrument(self) -> str:
        """Name of the scanner; empty where it is not told."""
        return self.scan.provenance.facts.get("instrument", "")

    @property
    def effects(self) -> Mapping[str, NDArray[np.float64]]:
        """Of each hidden error, in words, what a standard deviation of it does to the image."""
        found = {KINDS[name].what: error.effect for name, error in self.systematics.items()}
        return {what: effect.astype(np.float64) for what, effect in found.items() if effect is not None}

    @cached_property
    def _grown(self) -> NDArray[np.float64]:
        """What calibration multiplied each pixel's standard deviation by, (y, x); of one scale for all a number."""
        found = self.calibration
        if found is None or found.edge_ratio == 1 or self.std is None or self.std_raw is None:
            return np.array(1.0 if found is None else max(found.image_scale, 1e-300) ** 0.5)
        before, after = self.std_raw.astype(np.float64), self.std.astype(np.float64)
        return np.divide(after, before, out=np.ones_like(after), where=(before > 0) & (after > 0))

    @cached_property
    def _budget(self) -> VarianceBudget:
        noise_scale = 1.0 if self.calibration is None else self.calibration.noise_scale
        noise = {"sigma2": self.sigma2 / noise_scale, "subpixel": self.subpixel / noise_scale}
        return VarianceBudget(self.scan, self.grid, image=self.mean, **noise)
