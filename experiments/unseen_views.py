"""Real scans: reconstruct a few views, and score the error bars on all the views that were used for nothing.

``python -m experiments.unseen_views walnut --size 128`` (or ``ta``, ``tb``: HTC 2022 with truth); one row a scan, size and seed
stands in ``figures/unseen_views.csv``; ``--seeds 8 --workers 4`` makes eight of them on four processes.

Beside the scores stand two others of the same residuals: that of one variance from the held-out views, and that of variances
which the neighbouring unseen rays' own residuals show. Nobody who has not measured these rays knows that, so it is about what
error bars could come to.
"""

import csv
import time
from collections.abc import Mapping
from typing import Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from tyro.conf import Positional

import ctuq
from ctuq import files
from ctuq.pipeline import match_detector
from ctuq.scale import cluster, mapped
from ctuq.scores.gaussian import gaussian_scores, truth_scores
from ctuq.uncertainty.results.unseen_views import predict_views
from experiments import FIGURES, ROOT

STEPS = {"walnut": 4, "ta": 8, "tb": 12}
_SAMPLES = 512
_WIDTHS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Of the windows, in views and in columns."""

_OF_OBJECT = ("cover_95_object", "log_likelihood_object")
"""Also of the standard deviation without what no ray tells."""


def load(name: str) -> ctuq.Scan:
    """A shipped scan with all its views (and the truth, for HTC)."""
    if name == "walnut":
        return ctuq.read(files.demo_scan())
    if name == "tooth":
        return ctuq.read(ROOT / "data" / "tooth" / "tooth.h5")
    folder = ROOT / "data" / "htc2022"
    return ctuq.read(sorted(folder.glob(f"htc2022_{name}_*-*.mat")), truth=folder / f"htc2022_{name}_seg_gt.png")


def measure(name: str, size: int, seed: int) -> dict[str, float | str]:
    """Reconstruct a part of a scan's views, and score the others."""
    scan = load(name)
    start = time.perf_counter()
    result = ctuq.reconstruct(scan.select(_used(name, scan)), size=size, samples=_SAMPLES, seed=seed)
    seconds = time.perf_counter() - start
    print(" ".join(f"{k} {v:.1f}" for k, v in result.timings.items()))
    return {"scan": name, "size": size, "seed": seed, "views": len(_used(name, scan)), "seconds": seconds} | scored(
        name, result
    )


def scored(name: str, result: ctuq.Result) -> dict[str, float | str]:
    """Scores of the unseen rays: calibrated, raw, and of a constant variance learned from the same held-out views."""
    scan = load(name)
    unused = np.setdiff1d(np.arange(scan.n_angles), _used(name, scan))
    others = match_detector(scan.select(unused), result.grid)
    A = ctuq.ray_transform(result.grid, others.geometry, backend="matrix")
    mean, variance = predict_views(result, A)
    residual = others.projections - mean
    row: dict[str, float | str] = {**gaussian_scores(residual, variance)}
    c = result.calibration
    assert c is not None
    raw = (variance - result.sigma2) / c.image_scale + result.sigma2 / c.noise_scale
    constant = float(np.mean((c.predictions[0] - c.predictions[1]) ** 2))
    row |= {f"raw_{k}": v for k, v in gaussian_scores(residual, raw).items()}
    row["constant_log_likelihood"] = gaussian_scores(residual, np.full_like(residual, constant))["log_likelihood"]
    row["neighbours_log_likelihood"] = of_neighbours(residual)
    row |= {"image_scale": c.image_scale, "image_scale_log_sd": c.log_image_scale_sd, "noise_scale": c.noise_scale}
    truth = result.scores.get("truth", {})
    row |= {f"truth_{k}": truth.get(k, float("nan")) for k in ("psnr", "rank_correlation", *_OF_OBJECT)}
    known = result.truth is not None and result.std_rays is not None
    alone = truth_scores(result.mean, result.std_rays, result.truth) if known else {}
    return row | {f"truth_{k}_of_rays": alone.get(k, float("nan")) for k in _OF_OBJECT}


def of_neighbours(residual: NDArray[np.float64]) -> float:
    """Log-likelihood a ray, each ray's variance the mean square of its neighbours' residuals in the best Gaussian window.

    Parameters
    ----------
    residual : array, shape (view, column)
        Of rays that were used for nothing; a ray's own says nothing of its variance.
    """
    squares, found = residual**2, []
    for width in ((a, b) for a in _WIDTHS for b in _WIDTHS):
        one = np.zeros([2 * int(8 * w) + 1 for w in width])
        middle = tuple(n // 2 for n in one.shape)
        one[middle] = 1.0
        own = gaussian_filter(one, width, mode="constant")[middle]
        others = (gaussian_filter(squares, width, mode="nearest") - own * squares) / (1 - own)
        found.append(gaussian_scores(residual, np.maximum(others, 1e-6 * squares.mean()))["log_likelihood"])
    return max(found)


def _used(name: str, scan: ctuq.Scan) -> NDArray[np.int64]:
    return np.arange(0, scan.n_angles, STEPS[name])


def _of_seed(shared: tuple[str, int], seed: int, before: None) -> dict[str, float | str]:
    del before
    return measure(*shared, seed)


def main(
    name: Positional[Literal["walnut", "ta", "tb"]], size: int = 128, seed: int = 0, seeds: int = 1, workers: int | None = None
) -> None:
    """Print and record the scores of one scan, by one seed or by several, here or on many processes."""
    with cluster(workers) as executor:
        rows = mapped(_of_seed, range(seed, seed + seeds), (name, size), executor)
    _record(rows)
    for row in rows:
        for key, value in row.items():
            print(f"{key:>26} {value:.4g}" if isinstance(value, float) else f"{key:>26} {value}")


def _record(rows: list[dict[str, float | str]]) -> None:
    """In the place of what stood there of the same scan, size and seed."""
    path, made = FIGURES / "unseen_views.csv", {_key(row): row for row in rows}
    if path.is_file():
        with path.open(newline="") as file:
            made = {_key(row): row for row in csv.DictReader(file)} | made
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), restval="nan")
        writer.writeheader()
        writer.writerows(made.values())


def _key(row: Mapping[str, float | str]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("scan", "size", "seed"))


if __name__ == "__main__":
    tyro.cli(main)
