"""What a result says of the scan's systematic errors: in sentences, as a table, and as values for ``--json``."""

from typing import Any

import numpy as np

from ctuq.scores.gaussian import Z95
from ctuq.systematics.catalogue import KINDS, NONE, UNSURE, hidden_wishes
from ctuq.uncertainty.results.contents import Systematic
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.volume import VolumeResult

_LEARNT = 0.5
"""Of the prior's standard deviation: an error that is less sure after the scan was not told by it."""
_SHARE = 0.01
_LARGE = 10.0
"""In %: beyond, a share and its logarithm differ by a twentieth and more."""


def errors_told(result: Result) -> list[str]:
    """A sentence for each systematic error that was a part of the model."""
    return [_told(name, found) for name, found in result.systematics.items()]


def error_rows(result: Result) -> list[tuple[str, ...]]:
    """Name, estimate with its 95 % interval or spread, prior width, and share of the image's variance inside the object."""
    rows = []
    for name, found in result.systematics.items():
        width = f"± {_number(found.width)}{', learned' if found.learned else ''}"
        rows.append((f"{name} ({found.unit})", _estimate(found), width, f"{100 * found.share:.1f} %"))
    return rows


def error_facts(result: Result) -> dict[str, dict[str, Any]]:
    """By name, what a program asks for of each; whether a number is significant is None where rays do not tell it."""
    return {name: _facts(name, found) for name, found in result.systematics.items()}


def held_facts(result: VolumeResult) -> dict[str, dict[str, Any]]:
    """By name, the errors that error bars of a volume or a stack hold possible: no ray tells them."""
    if result.std is None or result.method != "dip":
        return {}
    asked = hidden_wishes(str(result.settings.get("systematics", NONE)), "volumes", of=result.provenance)
    return {
        wish.name: {
            "what": KINDS[wish.name].what,
            "unit": KINDS[wish.name].unit,
            "of": KINDS[wish.name].of,
            "told_by_rays": False,
            "significant": None,
            "width": KINDS[wish.name].width if wish.width is None else wish.width,
            "width_learned": False,
        }
        for wish in asked
    }


def _facts(name: str, found: Systematic) -> dict[str, Any]:
    low, high = found.values - Z95 * found.std, found.values + Z95 * found.std
    told = _by_rays(found)
    return {
        "what": KINDS[name].what,
        "unit": found.unit,
        "of": found.of,
        "values": found.values,
        "std": found.std,
        "interval": np.stack([low, high], 1),
        "told_by_rays": told,
        "significant": None if name in UNSURE or not told else low * high > 0,
        "taken_out": found.taken,
        "width": found.width,
        "width_learned": found.learned,
        "image_variance_share": found.share,
        "sentence": _told(name, found),
    }


def _by_rays(found: Systematic) -> bool:
    """Whether the scan says more of an error than was known before; of many numbers it does."""
    if found.hidden:
        return found.taken is not None  # of an object of one material
    return len(found.values) > 1 or float(found.std[0]) <= _LEARNT * found.width


def _told(name: str, found: Systematic) -> str:
    what = KINDS[name].what
    if found.hidden and found.taken is None:
        return _held_possible(name, found)
    if found.hidden:
        return _of_one_material(name, found)
    told = _one(name, found) if len(found.values) == 1 else _many(found)
    share = f" Knowing it would take {100 * found.share:.0f} % of the image's variance inside the object." * (
        found.share >= _SHARE
    )
    out = " The images are of rays without it." if found.taken is not None else ""
    return f"{what[0].upper()}{what[1:]}: {told}.{out}{share}"


def _held_possible(name: str, found: Systematic) -> str:
    what, share = KINDS[name].what, 100 * found.share
    beam = " A monochromatic beam has none: --systematics none." if name == "hardening" else ""
    return (
        f"{what[0].upper()}{what[1:]} is held possible (± {_number(found.width)} {found.unit}), as rays do not tell it from "
        f"the object: it makes {share:.0f} % of the image's variance inside the object.{beam}"
    )


def _of_one_material(name: str, found: Systematic) -> str:
    what, value, sd = KINDS[name].what, float(found.values[0]), float(found.std[0])
    low, high = value - Z95 * sd, value + Z95 * sd
    return (
        f"{what[0].upper()}{what[1:]}: {_number(value, sd)} ± {_number(sd)} {found.unit} (95 % interval {_number(low, sd)} to "
        f"{_number(high, sd)}), as the object is taken to be of one material. The images are of rays without it; what is left "
        f"makes {100 * found.share:.0f} % of the image's variance inside the object."
    )


def _one(name: str, found: Systematic) -> str:
    value, sd = float(found.values[0]), float(found.std[0])
    low, high = value - Z95 * sd, value + Z95 * sd
    text = f"{_number(value, sd)} ± {_number(sd)} {found.unit} (95 % interval {_number(low, sd)} to {_number(high, sd)})"
    if not _by_rays(found):
        return f"{text}; ± {_number(found.width)} was known before, and the scan cannot tell it from the image"
    if name in UNSURE:
        return f"{text}, a hint that says neither that it is wrong nor that it is right"
    return f"{text}, {'a significant error' if low * high > 0 else 'not significant'}"


def _many(found: Systematic) -> str:
    z = np.abs(found.values) / np.maximum(found.std, 1e-300)
    most = int(z.argmax())
    spread = float(np.sqrt(np.mean(found.values**2)))
    value, sd = float(found.values[most]), float(found.std[most])
    count = int(np.sum(z > Z95))
    if not count and found.taken is None:
        within = Z95 * float(np.sqrt(np.mean(found.std**2)))
        return (
            f"zero within ± {_number(within)} {found.unit} (95 %), as far as the scan tells: none of {len(z)} {found.of}s is "
            f"significantly off, most of all {found.of} {most} (from 0) with {_number(value, sd)} ± {_number(sd)} {found.unit}"
        )
    return (
        f"off by {_number(spread)} {found.unit} (rms), {count} of {len(z)} {found.of}s significantly, most of all {found.of} "
        f"{most} (from 0) with {_number(value, sd)} ± {_number(sd)} {found.unit}{_factor(value, found.unit)}"
    )


def _factor(value: float, unit: str) -> str:
    """Of flux and gains, which rays have as logarithms, what a large one is."""
    return f" of the logarithm ({np.exp(value / 100):.2g} times)" if unit == "%" and abs(value) > _LARGE else ""


def _estimate(found: Systematic) -> str:
    if len(found.values) > 1:
        return f"{_number(float(np.sqrt(np.mean(found.values**2))))} rms of {len(found.values)} {found.of}s"
    value, sd = float(found.values[0]), float(found.std[0])
    return f"{_number(value, sd)} ± {_number(sd)}"


def _number(value: float, error: float | None = None) -> str:
    """To two digits; beside an error to as many places as it has."""
    if error is None or error <= 0:
        return f"{value:.2g}"
    places = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{places}f}"
