"""Real volumes and stacks that ctuq was not made on: every N-th view makes the image, and the others judge its error bars.

``python -m experiments.strangers_volumes FOLDER`` scores the scans of ``strangers_volumes.yaml``, whose files are in FOLDER, or
those of ``--scans LIST.yaml``. It goes on where it stopped, and adds a row for each scan to ``figures/strangers_volumes.csv``.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
import yaml
from numpy.typing import NDArray
from tyro.conf import Positional

import ctuq
from ctuq.app.typed import steps
from ctuq.files import read_volume
from ctuq.pipeline import ReconstructOptions, reconstruct_stack, reconstruct_volume
from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.subpixel import volume_noise
from ctuq.pipeline.views import tensors
from ctuq.pipeline.volume.matched import match_pixels
from ctuq.recon import tv
from ctuq.recon.dip import Data
from ctuq.scores.gaussian import gaussian_scores
from ctuq.tomo.rays.volume import volume_transform
from ctuq.tomo.volume_scan import VolumeScan
from ctuq.uncertainty.results.volume import VolumeResult
from experiments import FIGURES
from experiments.engine.rows import Rows

OUTPUT = FIGURES / "strangers_volumes.csv"
LIST = Path(__file__).with_suffix(".yaml")
_TOLD = ("rms_z", "cover_68", "cover_95")


def opened(given: dict[str, Any], folder: Path) -> VolumeScan:
    """The scan as a stranger reads it."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", dir=folder) as file:
        yaml.safe_dump(given["geometry"], file)
        file.flush()
        return read_volume(folder / given["file"], geometry=file.name)


def predicted(result: VolumeResult, used: VolumeScan, other: VolumeScan) -> tuple[NDArray, NDArray]:
    """Mean and variance (row, angle, column) of rays of other views, noise and what voxels cannot draw included."""
    assert result.samples is not None
    before, A = (volume_transform(result.grid, scan.geometry) for scan in (used, other))
    data = Data(before, *tensors(used, before.device))
    drawn = tv(data.A, data.y, weights=data.weights)
    rest = Data(A, *tensors(other, A.device))
    noise, theirs = volume_noise(data, drawn), volume_noise(rest, drawn)
    weights = rest.weights.double().clamp(min=1e-12)
    beside = theirs.least * (1 / theirs.weights.double().clamp(min=1e-12) - 1 / weights)
    spread = A(torch.from_numpy(result.samples - result.mean)).double().square().mean(0)
    variance = spread + result.sigma2 / weights + noise.share(result.sigma2) * beside
    return A(torch.from_numpy(result.mean)).double().numpy(), variance.numpy()


def of_volume(scan: VolumeScan, given: dict[str, Any]) -> dict[str, float]:
    """Scores of the rays of views that were used for nothing, of a volume by the network."""
    used = np.arange(0, scan.n_angles, given["every"])
    rest = scan.select(np.setdiff1d(np.arange(scan.n_angles), used))
    # What hides in an image foretells the rays that it was made from: with hardening drawn beside it the bars of a weld's rays
    # were a quarter too long.
    result = reconstruct_volume(scan.select(used), options=VolumeOptions("dip", given["size"], systematics="none"))
    # The noise that was learned is that of rays as the network was given them.
    rest = match_pixels(rest, result.grid)
    mean, variance = predicted(result, match_pixels(scan.select(used), result.grid), rest)
    good = np.ones(mean.shape, bool) if rest.weights is None else rest.weights > 0
    scores = gaussian_scores((rest.projections - mean)[good], variance[good])
    return {"voxels": result.mean.size} | {name: scores[name] for name in _TOLD}


def of_stack(scan: VolumeScan, given: dict[str, Any]) -> dict[str, float]:
    """The same of a stack: root mean square and means over its slices."""
    used, every = np.arange(0, scan.n_angles, given["every"]), np.arange(scan.n_angles)
    result = reconstruct_stack(
        scan.select(used),
        rows=steps(given["slices"], "slices", scan.geometry.rows),
        judge=scan.select(np.setdiff1d(every, used)),
        options=ReconstructOptions(size=given["size"]),
    )
    told = {name: np.asarray(result.slices[f"judged_{name}"]) for name in _TOLD}
    means = {"rms_z": float(np.sqrt(np.nanmean(told["rms_z"] ** 2)))}
    return {"voxels": result.mean.size} | means | {name: float(np.nanmean(told[name])) for name in _TOLD[1:]}


def main(folder: Positional[Path], scans: Path = LIST, only: str = "") -> None:
    """Score what is not there yet.

    Parameters
    ----------
    folder
        With the files of the list.
    scans
        The list.
    only
        Scans whose name has this in it.
    """
    kept = Rows(OUTPUT)
    for given in yaml.safe_load(scans.read_text()):
        if only not in given["scan"] or kept.where(scan=given["scan"], size=given["size"]):
            continue
        if not (folder / given["file"]).exists():
            print(f"{given['scan']}: not in {folder}")
            continue
        try:
            scan = opened(given, folder)
            row = (of_stack if "slices" in given else of_volume)(scan, given)
        except ctuq.CtuqError as error:
            print(f"{given['scan']}: {error}", flush=True)
            continue
        views = {"views": len(range(0, scan.n_angles, given["every"])), "of": scan.n_angles, "size": given["size"]}
        kept.add([{"scan": given["scan"], "source": given["source"], "as": _way(given)} | views | row])
        print(kept.rows[-1], flush=True)
    print(table(kept))


def _way(given: dict[str, Any]) -> str:
    return "stack" if "slices" in given else "volume"


def table(kept: Rows) -> str:
    """Rms z, and what 68 and 95 % intervals hold."""
    lines = ["| real scan | as | used of all | rms z | 68 / 95 % |", "|---|" + 4 * "---|"]
    for row in kept.rows:
        held = f"{100 * float(row['cover_68']):.0f}, {100 * float(row['cover_95']):.0f}"
        used = f"{row['views']} of {row['of']}"
        lines.append(f"| {row['scan']} | {row['as']}, {row['size']} across | {used} | {float(row['rms_z']):.2f} | {held} |")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
