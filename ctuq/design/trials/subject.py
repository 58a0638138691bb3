"""What a trial measures: an object whose every view is there already, drawn once or taken from a scan, and how it is judged."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.design.models.model import Measurements
from ctuq.errors import InputError
from ctuq.scores.gaussian import image_scores
from ctuq.tomo.geometry import Geometry
from ctuq.tomo.rays.matrix import MatrixRayTransform
from ctuq.tomo.scan import Scan

_CLOSED = 1.5


@dataclass(frozen=True, eq=False)
class Subject:
    """All views of one object, measured in advance: every strategy meets the same rays with the same noise.

    Parameters
    ----------
    name : str
    A : MatrixRayTransform
        Of all V views.
    y, weights : Tensor, float32, shape (V, n)
        Line integrals, and the relative precision of each ray.
    candidates : array of int, shape (C,)
        The views that may be chosen, in the order of their angles; all others only judge.
    reference : array, shape (y, x), optional
        The truth, or a reconstruction from many views, 1/mm.
    """

    name: str
    A: MatrixRayTransform
    y: Tensor
    weights: Tensor
    candidates: NDArray[np.int64]
    reference: NDArray | None = None

    @property
    def angles(self) -> NDArray[np.float64]:
        """Of the candidates, radians, (C,)."""
        return self.A.geometry.angles[self.candidates]

    def offered(self) -> "Subject":
        """The candidates alone: what a strategy is shown."""
        rows = torch.from_numpy(self.candidates)
        everything = np.arange(len(self.candidates))
        return Subject(self.name, self.A.subset(self.candidates), self.y[rows], self.weights[rows], everything)

    def measured(self, views: Sequence[int] | NDArray) -> Measurements:
        """The chosen ones of all V views."""
        chosen = torch.as_tensor(np.asarray(views, np.int64))
        return Measurements(self.A, chosen.numpy(), self.y[chosen], self.weights[chosen])

    def judge(self, image: Tensor, views: NDArray[np.int64]) -> dict[str, float]:
        """How good an image from these candidates is, in dB; larger is better.

        Parameters
        ----------
        image : Tensor, shape (y, x)
        views : array of int
            Candidates that it was made from.

        Returns
        -------
        dict of str to float
            "truth": PSNR against the reference, where there is one. "unseen": root mean square of the views that were not used
            over that of their residual, both weighted (the residual holds those views' own noise).
        """
        unseen = np.setdiff1d(np.arange(len(self.y)), self.candidates[views])
        scores: dict[str, float] = {}
        if self.reference is not None:
            scores["truth"] = image_scores(image.cpu().numpy(), self.reference)["psnr"]
        if len(unseen):
            rows = torch.from_numpy(unseen)
            w, y = self.weights[rows].double(), self.y[rows].double()
            residual = self.A(image.float()).double()[rows] - y
            scores["unseen"] = float(10 * torch.log10((w * y.square()).sum() / (w * residual.square()).sum()))
        return scores


def subject(
    name: str,
    scan: Scan,
    A: MatrixRayTransform,
    *,
    candidates: NDArray[np.int64] | None = None,
    reference: NDArray | None = None,
) -> Subject:
    """A scan as a subject.

    Parameters
    ----------
    name : str
    scan : Scan
        On the detector that the image's grid asks for.
    A : MatrixRayTransform
        Of all its views.
    candidates : array of int, optional
        None offers every view.
    reference : array, shape (y, x), optional

    Raises
    ------
    InputError
        If scan and ray transform disagree, or an index is no view.
    """
    if scan.geometry != A.geometry:
        raise InputError("The ray transform is not that of the scan; make it from the scan's geometry.")
    chosen = np.arange(scan.n_angles) if candidates is None else np.unique(np.asarray(candidates, np.int64))
    if not len(chosen) or chosen.min() < 0 or chosen.max() >= scan.n_angles:
        raise InputError(f"The candidates must be some of the {scan.n_angles} views.")
    y = torch.tensor(scan.projections, device=A.device)
    weights = torch.ones_like(y) if scan.weights is None else torch.tensor(scan.weights, device=A.device)
    order = np.argsort(scan.geometry.angles[chosen], kind="stable")
    return Subject(name, A, y, weights, chosen[order], reference)


def goes_round(geometry: Geometry) -> bool:
    """Whether the views of a scan are spread over a full turn, without a gap that is wider than a step and a half."""
    angles = np.unique(np.round(geometry.angles % (2 * np.pi), 9))
    gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
    return len(angles) > 2 and bool(gaps.max() < _CLOSED * np.median(gaps))
