"""What failures look like from outside: ``python -m experiments.calibration.signatures``.

A network that was stopped too early, and a prior of its weights that is too tight or too wide, leave marks on held-out rays
before anything else is known. For each, ``figures/signatures.csv`` has what the report shows (rms z of held-out rays before
calibration, the image's factor) and what nobody sees (scores of unseen rays and pixels). Fits are kept in ``runs``; run again,
it goes on.
"""

from collections.abc import Iterator

import numpy as np
import tyro

from ctuq.uncertainty.calibration.scales import ScalePrior
from experiments import FIGURES, ROOT
from experiments.calibration.choices import Choice, scored
from experiments.calibration.fits import Fitted, spoilt
from experiments.calibration.scans import Subject, subjects
from experiments.tables import write

OUTPUT, KEPT = FIGURES / "signatures.csv", ROOT / "runs" / "signatures"
SCANS = ("walnut, 30 views", "ta, 31 views", "ellipses, 2% noise, 30 views", "glyph, 5% noise, 20 views")
ITERATIONS, FACTORS = (10, 30, 100), (1e-4, 1e-2, 1.0, 1e2)
_VIEWS = 3
_AS_IT_IS, _RAW = Choice("as it is", ScalePrior(), turns=True), Choice("raw", None)


def cases(subject: Subject) -> Iterator[tuple[str, Fitted]]:
    """Each way to spoil a run, the sound one among them."""
    for count in ITERATIONS:
        yield f"stopped after {count} iterations", spoilt(subject, _VIEWS, KEPT, iterations=count)
    for factor in FACTORS:
        yield "sound" if factor == 1 else f"weights' variance x {factor:g}", spoilt(subject, _VIEWS, KEPT, factor=factor)


def row_of(name: str, case: str, fit: Fitted) -> dict[str, str | float]:
    """What is seen, and what is not."""
    z = fit.residual / np.sqrt(fit.signal + fit.noise)
    calibrated, raw = scored(fit, _AS_IT_IS), scored(fit, _RAW)
    row: dict[str, str | float] = {"scan": name, "case": case, "held_out_rms_z_raw": float(np.sqrt(np.mean(z**2)))}
    row["signal_over_noise"] = float(np.sqrt(fit.signal.mean() / fit.noise.mean()))
    row |= {"image_scale": calibrated["image_scale"], "noise_scale": calibrated["noise_scale"]}
    for kind, found in (("raw", raw), ("calibrated", calibrated)):
        keys = ("rms_z", "cover_95", "log_likelihood", "pixel_rms_z", "pixel_cover_95", "pixel_log_likelihood")
        row |= {f"{kind}_{key}": found.get(key, float("nan")) for key in keys}
    return row | {"rmse": calibrated["rmse"]}


def main(scans: tuple[str, ...] = SCANS) -> None:
    """Run, tell and record."""
    rows = [row_of(s.name, case, fit) for s in subjects() if s.name in scans for case, fit in cases(s)]
    write(rows, OUTPUT, digits=4)
    for row in rows:
        seen = f"held-out rms z {row['held_out_rms_z_raw']:.2f}, image x {row['image_scale']:.2f}"
        after = (
            f"unseen {row['calibrated_log_likelihood']:.2f} nats, rms z {row['calibrated_rms_z']:.2f}, rmse {row['rmse']:.4f}"
        )
        pixels = f"pixels 95 %: {100 * float(row['calibrated_pixel_cover_95']):.0f}"
        print(f"{row['scan']:30} {row['case']:28} {seen}; {after}; {pixels}")


if __name__ == "__main__":
    tyro.cli(main)
