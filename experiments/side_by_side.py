"""One problem in the ``.npz`` layout of the side-by-side benchmark: reconstruct, and print how good image and error bars are.

``python -m experiments.side_by_side FILE.npz --json OUT``
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

import ctuq
from ctuq.records import write_whole

# The published reference on glyph28_a20 (exact posterior with the TV prior), nats a pixel.
REFERENCE = {"glyph28_a20": {"log_likelihood_patch_1": 3.152, "log_likelihood_full": 3.176}}


def measure(path: Path) -> dict:
    """Reconstruct a problem with the defaults; timings in s, scores against its truth."""
    scan = ctuq.read(path)
    if scan.grid is None or scan.truth is None:
        raise ctuq.CtuqError(f"'{path}' holds no truth; give a file with image, sinogram and angles.")
    torch.set_num_threads(1 if scan.grid.size < 64**2 else torch.get_num_threads())
    result = ctuq.reconstruct(scan, size=scan.grid.shape[-1])
    calibration = result.calibration
    mse = float(np.mean((result.mean - result.truth) ** 2))
    return {
        "label": path.stem,
        "timings": dict(result.timings),
        "scores": {name: dict(values) for name, values in result.scores.items()},
        "constant_variance_log_likelihood": -0.5 * float(np.log(2 * np.pi * np.e * mse)),
        "prior": dict(result.prior),
        "log_evidence": result.log_evidence,
        "scales": None if calibration is None else {"image": calibration.image_scale, "noise": calibration.noise_scale},
        "std_monte_carlo_error": result.std_error,
        "reference": REFERENCE.get(path.stem, {}),
    }


def main(problem: tyro.conf.Positional[Path], out: Annotated[Path | None, tyro.conf.arg(name="json")] = None) -> None:
    """Print the scores of one problem; write them as JSON on request."""
    found = measure(problem)
    truth, stages = found["scores"]["truth"], found["timings"]
    print(f"{found['label']}: {sum(stages.values()):.1f} s wall: " + ", ".join(f"{k} {v:.1f} s" for k, v in stages.items()))
    print(f"PSNR {truth['psnr']:.2f} dB, SSIM {truth['ssim']:.4f}, rms z {truth['rms_z']:.2f}")
    print(f"rank correlation of |error| and std {truth['rank_correlation']:.2f}")
    for where in ("", "_object"):
        print(
            f"covers{where or '_all'}: 68 % {100 * truth['cover_68' + where]:.1f}, 95 % {100 * truth['cover_95' + where]:.1f}"
        )
    for name in [n for n in truth if n.startswith(("log_likelihood_patch", "log_likelihood_full"))]:
        beside = found["reference"].get(name)
        print(f"{name}: {truth[name]:.3f}" + ("" if beside is None else f" (reference {beside})"))
    constant = found["constant_variance_log_likelihood"]
    print(f"constant variance learned from the truth itself: {constant:.3f}")
    if out is not None:
        write_whole(out, lambda target: target.write(json.dumps(found, indent=1).encode()))


if __name__ == "__main__":
    tyro.cli(main)
