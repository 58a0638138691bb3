"""How well the slices of a stack came out: on their held-out views, and against a truth where there is one."""

import numpy as np
from numpy.typing import NDArray

from ctuq.records import Blocks
from ctuq.scores.gaussian import Z95


def against_truth(mean: Blocks, std: Blocks | None, truth: Blocks) -> dict[str, NDArray[np.float64]]:
    """Columns of the table of slices: rms error and highest value of the truth in 1/mm, rms z and cover of the error bars.

    One slice of each volume is in memory at a time. NaN in slices that were not made, or whose truth is not known.
    """
    rows = [_slice_scores(mean[z], None if std is None else std[z], truth[z]) for z in range(truth.shape[0])]
    return {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}


def _slice_scores(mean: NDArray, std: NDArray | None, truth: NDArray) -> dict[str, float]:
    error = mean.astype(np.float64) - truth
    scores = {"truth_rmse": float(np.sqrt(np.mean(error**2))), "truth_peak": float(truth.max())}
    if std is not None:
        z = error / np.maximum(std, np.finfo(np.float32).tiny)
        known = bool(np.isfinite(z).all())
        scores["truth_rms_z"] = float(np.sqrt(np.mean(z**2)))
        scores["truth_cover_95"] = float(np.mean(np.abs(z) <= Z95)) if known else np.nan
    return scores


def scores_of(table: dict[str, NDArray]) -> dict[str, float]:
    """Scores of a whole stack from the table of its slices."""
    return _of_held_out_views(table) | _of_truth(table)


def _of_truth(table: dict[str, NDArray]) -> dict[str, float]:
    if "truth_rmse" not in table or not np.isfinite(table["truth_rmse"]).any():
        return {}
    known = np.isfinite(table["truth_rmse"])
    error, peak = _rms(table["truth_rmse"][known]), float(table["truth_peak"][known].max())
    scores = {"rmse": error, "psnr": float(20 * np.log10(peak / error)) if error > 0 < peak else float("inf")}
    if "truth_rms_z" in table:
        scores["truth_rms_z"] = _rms(table["truth_rms_z"][known])
        scores["truth_cover_95"] = float(table["truth_cover_95"][known].mean())
    return scores


def _of_held_out_views(table: dict[str, NDArray]) -> dict[str, float]:
    """Of slices that neither taught nor learned anew."""
    if "held_out_rms_z" not in table:
        return {}
    z, others = table["held_out_rms_z"], (table["learned_anew"] == 0) & (table["teacher"] == 0)
    z = z[others & np.isfinite(z)]
    if not z.size:
        return {}
    return {"held_out_rms_z": _rms(z), "held_out_rms_z_min": float(z.min()), "held_out_rms_z_max": float(z.max())}


def _rms(values: NDArray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
