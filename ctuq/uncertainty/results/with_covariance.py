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
        hidden = {}
        for name, along in self.hidden_along(functional).items():
            hidden[name], resolved = along**2, resolved - along * self.effects[name]
        whole, known = (variance - sum(hidden.values()) for variance in variances)
        return self._budget(resolved, (whole, known)) | hidden

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
    def _budget(self) -> VarianceBudget:
        scales = (1.0, 1.0) if self.calibration is None else (self.calibration.image_scale, self.calibration.noise_scale)
        return VarianceBudget(self.scan, self.grid, sigma2=self.sigma2 / scales[1], image_scale=scales[0])
