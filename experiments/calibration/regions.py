"""Do scales by region of the image, or by class of rays, pay? ``python -m experiments.calibration.regions``.

Error bars of finished reconstructions, simulated ones with their truth (those of `experiments.quantities`) and real ones, are
scaled once more in several ways by three views that were used for nothing, and scored on all others that were used for nothing.
Results are
kept in ``runs``, so that the command goes on where it was stopped; ``figures/calibration_regions.csv`` has a row a scan and
choice.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.optimize import minimize

import ctuq
from ctuq.pipeline import match_detector
from ctuq.scores.gaussian import Z95, gaussian_scores
from ctuq.tomo.simulate import RelativeNoise, simulate
from ctuq.uncertainty.calibration.scales import FEWER, ScalePrior, correlation_time
from experiments import FIGURES, ROOT
from experiments.calibration import scans
from experiments.quantities import objects
from experiments.tables import write

OUTPUT, KEPT = FIGURES / "calibration_regions.csv", ROOT / "runs" / "regions"
_DRAWS, _UNSEEN, _TEACH = 1024, 30, 10
_EDGE, _AIR = 0.1, 0.05
"""Of the largest slope an edge's, and of the longest ray one through air."""
_REAL = ("walnut", "ta", "tb", "tooth")


@dataclass(frozen=True, eq=False)
class Case:
    """What error bars say of rays that were used for nothing.

    Parameters
    ----------
    residual : array, shape (views, columns)
    parts : dict of str to array, shape (k, k, views, columns)
        For each way to part the image, covariance of each part's rays with each other's.
    noise : array, shape (views, columns)
    air : array of bool, shape (views, columns)
        Rays that pass by the object.
    error, std : array, shape (y, x)
        Of the image; the error is NaN where no truth is known.
    regions : dict of str to array of int, shape (y, x)
        For each way, the part of each pixel.
    """

    residual: NDArray
    parts: dict[str, NDArray]
    noise: NDArray
    air: NDArray
    error: NDArray
    std: NDArray
    regions: dict[str, NDArray]


def case_of(result: ctuq.Result, unseen: ctuq.Scan, truth: NDArray | None) -> Case:
    """From a result and a scan of views that it has not seen."""
    A = ctuq.ray_transform(result.grid, unseen.geometry, backend="matrix")
    mean = result.mean.astype(np.float64)
    off = torch.from_numpy(result.draw(_DRAWS, seed=1) - result.mean)
    rays = A(torch.from_numpy(result.mean)).numpy().astype(np.float64)
    slope = np.hypot(*np.gradient(mean))
    edge = binary_dilation(slope > _EDGE * (mean.max() - mean.min()))
    regions = {
        "one": np.zeros(mean.shape, int),
        "edge, flat": np.where(edge, 0, 1),
        "edge, object, air": np.where(edge, 0, np.where(mean > 0.5 * np.quantile(mean, 0.95), 1, 2)),
    }
    parts = {}
    for name, region in regions.items():
        each = torch.stack([A((off * torch.from_numpy(region == k)).float()).double() for k in range(region.max() + 1)])
        parts[name] = torch.einsum("indc,jndc->ijdc", each, each).numpy() / _DRAWS
    weights = 1.0 if unseen.weights is None else unseen.weights.astype(np.float64)
    noise = np.broadcast_to(float(result.sigma2) / weights, rays.shape)
    error = np.full(mean.shape, np.nan) if truth is None else truth - mean
    assert result.std is not None
    return Case(
        unseen.projections - rays, parts, noise, rays < _AIR * rays.max(), error, result.std.astype(np.float64), regions
    )


@dataclass(frozen=True)
class Choice:
    """Scales of the image's variance, one a part, and of the noise's, one a class of rays."""

    name: str
    parts: str = "one"
    classes: bool = False
    conformal: bool = False
    learned: bool = True

    def scores(self, case: Case, prior: ScalePrior) -> dict[str, float]:
        """On rays that taught nothing, and on pixels."""
        teach = np.arange(_TEACH // 2, len(case.residual), _TEACH)
        test = np.setdiff1d(np.arange(len(case.residual)), teach)
        logs = self._learn(case, teach, prior)
        n = len(case.parts[self.parts])
        row = gaussian_scores(case.residual[test], self._variance(case, logs, test))
        std = case.std * np.exp(logs[:n] / 2)[case.regions[self.parts]]
        known = np.isfinite(case.error)
        row |= {
            "image_scales": " ".join(f"{x:.2f}" for x in np.exp(logs[:n])),
            "noise_scales": " ".join(f"{x:.2f}" for x in np.exp(logs[n:])),
        }
        if known.all():
            row |= {f"pixel_{k}": v for k, v in gaussian_scores(case.error, std**2).items()}
            for k, name in enumerate(("edge", "object", "air")):
                part = case.regions["edge, object, air"] == k
                if part.any():
                    found = gaussian_scores(case.error[part], std[part] ** 2)
                    row |= {
                        f"{name}_cover_68": found["cover_68"],
                        f"{name}_cover_95": found["cover_95"],
                        f"{name}_rms_z": found["rms_z"],
                    }
        return row

    def _variance(self, case: Case, logs: NDArray, views: NDArray) -> NDArray:
        P = case.parts[self.parts][:, :, views]
        roots = np.exp(logs[: len(P)] / 2)
        noise = logs[len(P) :]
        b = np.exp(noise[case.air[views].astype(int)]) if self.classes else np.exp(noise[0])
        return np.asarray(np.einsum("i,j,ijdc->dc", roots, roots, P) + b * case.noise[views])

    def _learn(self, case: Case, views: NDArray, prior: ScalePrior) -> NDArray:
        n = len(case.parts[self.parts])
        none = np.zeros(n + 1 + self.classes)
        if not self.learned:
            return none
        r = case.residual[views]
        z = r / np.sqrt(self._variance(case, none, views))
        if self.conformal:
            return none + 2 * np.log(np.quantile(np.abs(z), 0.95) / Z95)
        temper = 1 / (FEWER * correlation_time(z))

        def loss(logs: NDArray) -> float:
            v = self._variance(case, logs, views)
            t = 0.5 * (prior.freedom + 1) * np.log1p(logs**2 / prior.freedom)
            return float(0.5 * temper * np.sum(r**2 / v + np.log(v)) + t.sum())

        return np.asarray(minimize(loss, none, method="Nelder-Mead", options={"maxiter": 2000}).x)


CHOICES = (
    Choice("as it is", learned=False),
    Choice("one scale more"),
    Choice("edge, flat", parts="edge, flat"),
    Choice("edge, object, air", parts="edge, object, air"),
    Choice("noise of air and object", classes=True),
    Choice("edge, flat, and noise of air and object", parts="edge, flat", classes=True),
    Choice("conformal", conformal=True),
)


def cases() -> Iterator[tuple[str, Case]]:
    """Simulated ones that are kept, then real ones."""
    for subject in objects.subjects():
        if objects.is_kept(subject.name):
            yield subject.name, _simulated(subject)
    for subject in scans.subjects():
        if subject.name.split(",")[0] in _REAL:
            yield subject.name, _real(subject)


def _simulated(subject: objects.Subject) -> Case:
    result, fine = objects.fitted(subject), subject.fine()
    beam = ctuq.ParallelBeam(
        angles=ctuq.radians((np.arange(_UNSEEN) + 0.37) * 180 / _UNSEEN),
        columns=result.scan.geometry.columns,
        pixel=result.grid.voxel,
    )
    rng = np.random.default_rng([subject.seed, 99])
    unseen = simulate(fine, beam, result.grid, RelativeNoise(subject.noise), rng=rng, finer=objects.FINER)
    n = len(fine) // subject.size
    return case_of(result, unseen, fine.reshape(subject.size, n, subject.size, n).mean(axis=(1, 3)))


def _real(subject: scans.Subject) -> Case:
    path = KEPT / f"{subject.name}.h5"
    if not path.is_file():
        KEPT.mkdir(parents=True, exist_ok=True)
        ctuq.reconstruct(subject.scan.select(subject.used), size=subject.size, systematics="none").save(path)
    result = ctuq.Result.load(path)
    return case_of(result, match_detector(subject.scan.select(subject.unseen), result.grid), None)


def main() -> None:
    """Score every choice on every scan."""
    rows = []
    for name, case in cases():
        for choice in CHOICES:
            rows.append({"scan": name, "choice": choice.name} | choice.scores(case, ScalePrior(noise_mean=0.0)))
        print(name, flush=True)
    write(rows, OUTPUT)
    _tell(rows)


def _tell(rows: list[dict]) -> None:
    """A line a choice: means over the scans, and what it gains on the second choice, with its standard error."""
    base = {row["scan"]: row for row in rows if row["choice"] == CHOICES[1].name}
    for choice in CHOICES:
        chosen = [row for row in rows if row["choice"] == choice.name]
        parts = [f"{choice.name:40}"]
        for what in ("", "pixel_"):
            known = [row for row in chosen if f"{what}rms_z" in row]
            off = np.sqrt(np.mean([np.log(row[f"{what}rms_z"]) ** 2 for row in known]))
            gain = [row[f"{what}log_likelihood"] - base[row["scan"]][f"{what}log_likelihood"] for row in known]
            cover = np.mean([row[f"{what}cover_95"] for row in known])
            error = np.std(gain, ddof=1) / len(gain) ** 0.5
            parts.append(f"{what or 'ray_'}gain {np.mean(gain):+.3f} +- {error:.3f} 95 % {cover:.3f} off {off:.3f}")
        print("; ".join(parts))


if __name__ == "__main__":
    tyro.cli(main)
