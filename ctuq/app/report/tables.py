"""The tables of a report: names and numbers as a reader wants them."""

from collections.abc import Mapping, Sequence

import numpy as np

from ctuq.quantities import Quantity
from ctuq.uncertainty.results.image import Result

_LABELS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "rms_z": "rms z (1 is ideal)",
    "log_likelihood": "log-likelihood each (nats)",
    "log_likelihood_full": "log-likelihood a pixel, whole image",
    "crps": "CRPS",
    "rmse": "RMSE",
    "rank_correlation": "rank correlation of |error| and std",
    "sigma2": "noise variance of a ray of weight 1",
    "log_evidence": "log evidence (nats)",
    "log_evidence_error": "its standard error",
}
_SCORES = {
    "held_out": "Rays of held-out views",
    "truth": "Against the truth",
    "leave_one_angle_out": "Leave one angle out (closed form, network fixed)",
}
MEASURED_HEAD = ("quantity", "value ± standard uncertainty", "unit", "interval", "draws, their error", "most of the variance")
_INSIDE, _COVERS, _PATCH = "_object", "cover_", "log_likelihood_patch_"

Rows = list[tuple[str, ...]]


def _label(key: str) -> str:
    """A readable name for a key of a result."""
    if key in _LABELS:
        return _LABELS[key]
    if key.endswith(_INSIDE):
        return f"{_label(key.removesuffix(_INSIDE))}, object only"
    if key.startswith(_PATCH):
        patch = key.removeprefix(_PATCH)
        return f"log-likelihood a pixel, {patch} × {patch} patches"
    if key.startswith(_COVERS) and key.removeprefix(_COVERS).isdigit():
        return f"{key.removeprefix(_COVERS)} % intervals cover (%)"
    return key.replace("_", " ")


def _number(value: object, key: str = "") -> str:
    """A number to four digits, coverages in per cent; anything else as text."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        return str(value)
    if key.startswith(_COVERS):
        return f"{100 * value:.1f}"
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _is_known(value: object) -> bool:
    return not (isinstance(value, float | np.floating) and np.isnan(value))


def pairs(values: Mapping[str, object]) -> Rows:
    """One row a key: its label and its value; what is NaN, which nobody knows, is left out."""
    return [(_label(key), _number(value, key)) for key, value in values.items() if _is_known(value)]


def scale_rows(result: Result) -> Rows:
    """What was scaled, the factor, and its 68 % interval."""
    if result.calibration is None:
        return []
    found = result.calibration
    scales = (
        ("covariance of the image", found.image_scale, found.log_image_scale_sd),
        ("variance of the noise", found.noise_scale, found.log_noise_scale_sd),
    )
    # What is never below 1 has no interval that begins there.
    lowest = (1.0 if found.image_scale >= 1 else 0.0, 0.0)
    apart = [("variance at edges over that in flat parts", f"× {found.edge_ratio:.3g}", "")] if found.edge_ratio != 1 else []
    return [
        (name, f"× {scale:.3g}", f"{max(scale * np.exp(-sd), least):.3g} to {scale * np.exp(sd):.3g}")
        for (name, scale, sd), least in zip(scales, lowest, strict=True)
    ] + apart


def cover_rows(result: Result) -> Rows:
    """Each interval of unseen rays, and the range of what it covers."""
    found = result.calibration
    if found is None or not np.isfinite(found.cover_95).all():
        return []
    ranges = (("68 % intervals", found.cover_68), ("95 % intervals", found.cover_95))
    return [(name, f"{100 * low:.0f} to {100 * high:.0f} %") for name, (low, high) in ranges]


def score_tables(result: Result) -> list[tuple[str, Rows, tuple[str, ...]]]:
    """Title, rows and head of each group of scores; where a group has figures from before calibration, both stand in a row."""
    scores = {name: values for name, values in result.scores.items() if values}
    if result.calibration is not None:
        scores |= {"held_out": result.calibration.calibrated, "held_out_raw": result.calibration.raw}
    tables = []
    for name in sorted(scores, key=[*_SCORES, *scores].index):
        raw = scores.get(f"{name}_raw")
        if name.endswith("_raw") and name.removesuffix("_raw") in scores:
            continue
        title = _SCORES.get(name, _label(name))
        if raw is None or dict(raw) == dict(scores[name]):
            tables.append((title, pairs(scores[name]), ()))
        else:
            tables.append((title, _compared(scores[name], raw), ("score", "raw", "calibrated")))
    return tables


def _compared(calibrated: Mapping[str, float], raw: Mapping[str, float]) -> Rows:
    """Label, raw, calibrated; scores that the scales of the uncertainty do not touch have no raw figure of their own."""
    known = {key: value for key, value in calibrated.items() if _is_known(value)}
    return [(_label(key), _number(raw.get(key, ""), key), _number(value, key)) for key, value in known.items()]


def hyperparameters(result: Result) -> Rows:
    """Noise, evidence and prior."""
    known = {"sigma2": result.sigma2, "log_evidence": result.log_evidence}
    if result.log_evidence_error:
        known["log_evidence_error"] = result.log_evidence_error
    return pairs({key: value for key, value in known.items() if np.isfinite(value)} | dict(result.prior))


def timing_rows(result: Result) -> Rows:
    """Stage and seconds, with the sum, and what was planned before the fit."""
    rows = [(_label(stage), f"{seconds:.1f}") for stage, seconds in result.timings.items()]
    if not rows:
        return []
    rows.append(("sum", f"{sum(result.timings.values()):.1f}"))
    if result.plan:
        rows.append(("planned", f"{float(result.plan['seconds']):.0f} s, {float(result.plan['bytes']) / 2**30:.1f} GiB"))
        if "seconds again" in result.plan:
            again, names = float(result.plan["seconds again"]), result.plan["again for"]
            rows.append(("planned for further fits", f"{again:.0f} s each, if one is found wrong: {names}"))
        rows.append(("route", str(result.plan["reason"])))
    return rows


def input_rows(result: Result) -> Rows:
    """Where the data came from and what was done to them."""
    scan, geometry = result.scan, result.scan.geometry
    degrees = np.rad2deg(geometry.angles)
    rows = [("source", scan.provenance.source)]
    if scan.provenance.sha256:
        rows.append(("SHA-256", scan.provenance.sha256))
    rows += [(_label(key), text) for key, text in scan.provenance.facts.items()]
    rows += [(f"step {k + 1}", step) for k, step in enumerate(scan.provenance.steps)]
    rows += [("views", f"{len(degrees)}, {degrees.min():.4g}° to {degrees.max():.4g}°")]
    rows += [("detector", f"{geometry.columns} columns of {geometry.pixel:.4g} mm")]
    rows += [("offset of detector, of axis", f"{geometry.detector_offset:.4g} mm, {geometry.axis_offset:.4g} mm")]
    rows += [("weights", "one per ray" if scan.weights is not None else "all rays alike")]
    return rows


def measured_rows(quantities: Sequence[Quantity]) -> Rows:
    """A row for each measured quantity, and below it what to know of it."""
    rows: Rows = []
    for q in quantities:
        has_interval = np.isfinite(q.interval).all()
        value = f"{q.value:.4g} ± {q.standard_uncertainty:.2g}" if has_interval else f"{q.value:.4g}"
        interval = f"{q.interval[0]:.4g} to {q.interval[1]:.4g} ({100 * q.level:g} %)" if has_interval else ""
        error = f"{100 * q.monte_carlo_error:.1f} %" if has_interval else f"± {q.monte_carlo_error:.1g}"
        total = sum(q.budget.values())
        most = max(q.budget.items(), key=lambda part: part[1]) if total > 0 else None
        share = "" if most is None else f"{most[0]} ({100 * most[1] / total:.0f} %)"
        rows.append((q.name, value, q.unit, interval, f"{q.draws}, {error}" if q.draws else "none", share))
        rows += [("", note, "", "", "", "") for note in q.notes]
    return rows


def citations(result: Result) -> Sequence[str]:
    """What to cite: the data, this program, and the work it stands on."""
    data = result.scan.provenance.facts.get("citation")
    told = result.versions.get("ctuq", "")
    name = f"ctuq {told}" if told[:1].isdigit() else "ctuq"
    return [
        *([f"Data: {data}"] if data else []),
        f"{name}: X-ray CT that says how sure it is. See CITATION.cff.",
        "J. Antorán, R. Barbano, J. Leuschner, J. M. Hernández-Lobato, B. Jin: Uncertainty Estimation for Computed Tomography "
        "with a Linearised Deep Image Prior. Transactions on Machine Learning Research, 2023.",
        "D. Ulyanov, A. Vedaldi, V. Lempitsky: Deep Image Prior. CVPR 2018.",
        "W. van Aarle et al.: Fast and flexible X-ray tomography using the ASTRA toolbox. Optics Express 24, 2016.",
    ]
