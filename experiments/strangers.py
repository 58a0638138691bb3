"""Real scans that ctuq was not made on: every N-th view makes the image, and the others judge its error bars.

``python -m experiments.strangers FOLDER`` scores the scans of ``strangers.yaml``, whose files are in FOLDER, or those of a list
of your own, ``--scans LIST.yaml``: a name, where it is from, files, ``every``, and perhaps a picture of the truth and what a
geometry file says. It goes on where it stopped, and adds a row for each scan, method and size to ``figures/strangers.csv``.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tyro
import yaml
from tyro.conf import Positional

import ctuq
from ctuq.pipeline import match_detector
from ctuq.pipeline.views import rays_inside
from ctuq.scores.gaussian import gaussian_scores
from ctuq.stages import Stages
from ctuq.uncertainty.results.unseen_views import predict_views
from experiments import FIGURES
from experiments.engine.rows import Rows

OUTPUT = FIGURES / "strangers.csv"
LIST = Path(__file__).with_suffix(".yaml")
_JUDGES, _SAMPLES = 120, 256
_TOLD = ("rms_z", "cover_68", "cover_95", "log_likelihood")


def opened(given: dict[str, Any], folder: Path) -> ctuq.Scan:
    """The scan as a stranger reads it: by its files and what is published beside them."""
    truth = folder / given["truth"] if "truth" in given else None
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", dir=folder) as file:
        yaml.safe_dump(given.get("geometry", {}), file)
        file.flush()
        geometry = file.name if "geometry" in given else None
        return ctuq.read([folder / name for name in given["files"]], geometry=geometry, truth=truth)


def measure(scan: ctuq.Scan, step: int, size: int, method: str) -> dict[str, float]:
    """Scores of rays that were used for nothing, and how much of a known object's pixels 95 % intervals hold."""
    used = np.arange(0, scan.n_angles, step)
    result = ctuq.reconstruct(scan.select(used), method, size=size, samples=_SAMPLES)
    rest = np.setdiff1d(np.arange(scan.n_angles), used)
    rest = rest[np.unique(np.linspace(0, len(rest) - 1, min(_JUDGES, len(rest))).round().astype(int))]
    both = np.union1d(used, rest)
    judged = np.isin(both, rest)
    every = match_detector(scan.select(both), result.grid)
    A = ctuq.ray_transform(result.grid, every.geometry, backend="matrix")
    # What lies outside of the image is taken out of judged rays as out of fitted ones, and is estimated from these alone.
    inside = rays_inside(A, every, np.flatnonzero(judged), device=A.device, stages=Stages()).y.numpy()
    mean, variance = predict_views(result, A, every.weights)
    good = judged[:, None] & np.isfinite(variance)  # a ray that counts for nothing has no finite one
    residual = (inside - mean)[good]
    scores = gaussian_scores(residual, variance[good])
    held = result.calibration.predictions if result.calibration is not None else np.full((2, 1), np.nan)
    alike = np.full_like(residual, np.nanmean((held[0] - held[1]) ** 2))
    row = {"views": len(used), "of": scan.n_angles, "size": size} | {name: scores[name] for name in _TOLD}
    row["constant_log_likelihood"] = gaussian_scores(residual, alike)["log_likelihood"]
    return row | {"object_cover_95": result.scores.get("truth", {}).get("cover_95_object", float("nan"))}


def main(
    folder: Positional[Path], scans: Path = LIST, size: int = 64, methods: tuple[str, ...] = ("tv", "dip"), only: str = ""
) -> None:
    """Score what is not there yet.

    Parameters
    ----------
    folder
        With the files of the list.
    scans
        The list.
    size
        Pixels of a side.
    methods
        Whose error bars are judged.
    only
        Scans whose name has this in it.
    """
    kept = Rows(OUTPUT)
    for method in methods:
        for given in yaml.safe_load(scans.read_text()):
            key = {"scan": given["scan"], "size": size, "method": method}
            if only not in given["scan"] or kept.where(**key):
                continue
            if not all((folder / name).exists() for name in given["files"]):
                print(f"{given['scan']}: not in {folder}")
                continue
            try:
                row = measure(opened(given, folder), given["every"], size, method)
            except ctuq.CtuqError as error:
                print(f"{given['scan']}: {error}", flush=True)
                continue
            kept.add([{"scan": given["scan"], "source": given["source"], "method": method} | row])
            print(kept.rows[-1], flush=True)
    print(table(kept))


def table(kept: Rows) -> str:
    """Of the network: rms z, what 68 and 95 % intervals hold, and nats a ray, beside a constant deviation's and `tv`'s."""
    lines = [
        "| real scan | used of all | network: rms z | 68 / 95 % | nats a ray (constant) | `tv`: nats |",
        "|---|" + 5 * "---|",
    ]
    for row in kept.where(method="dip"):
        (simple,) = kept.where(method="tv", scan=row["scan"], size=row["size"]) or ({"log_likelihood": "nan"},)
        z, low, high, nats, alike = (
            float(row[name]) for name in ("rms_z", "cover_68", "cover_95", "log_likelihood", "constant_log_likelihood")
        )
        held = f"{100 * low:.0f}, {100 * high:.0f}"
        used = f"{int(float(row['views']))} of {int(float(row['of']))}"
        scores = f"{z:.2f} | {held} | {nats:.2f} ({alike:.2f}) | {float(simple['log_likelihood']):.2f}"
        lines.append(f"| {row['scan']} | {used} | {scores} |")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
