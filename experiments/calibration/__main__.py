"""Fit everything, in hours, then compare the choices, in minutes: ``python -m experiments.calibration``.

What was fitted before is kept in ``runs/calibration``, so that the command goes on where it was stopped; delete the folder
after a change of the fit or of the linear model. ``--no-fit`` compares what is there. ``figures/calibration.csv`` has a row for
each scan, number of held-out views and choice; ``figures/calibration.png`` shows what the intervals of unseen rays cover beside
the range that is told.
"""

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from ctuq.uncertainty.calibration.scales import ScalePrior
from experiments import FIGURES, ROOT
from experiments.calibration.choices import Choice, scored, together, view_scatter
from experiments.calibration.drawing import draw
from experiments.calibration.fits import fitted, is_kept, rotated
from experiments.calibration.scans import Subject, subjects
from experiments.tables import write

CACHE = ROOT / "runs" / "calibration"
VIEWS = (3, 1, 6, 2, 4)
"""Held out, in the order of their interest; of fewer than 12 views 2 in place of 3. Each takes ten minutes of one core."""
_FEW, _LEFT = 12, 2
_SHORT, _ROTATED = 150, 16
ROTATED = "with views of a second fit"
_REAL = ("walnut", "ta", "tb", "tooth")
AS_IT_IS, AS_IT_WAS = (
    Choice("as it is", ScalePrior(), turns=True),
    Choice("as it was", ScalePrior(freedom=math.inf, noise_mean=0.0), fewer=1.0),
)

CHOICES = (
    AS_IT_IS,
    AS_IT_WAS,
    Choice("raw", None),
    Choice("given the fitted views alone", ScalePrior()),
    Choice("Gaussian priors", ScalePrior(freedom=math.inf)),
    Choice("3 times fewer", ScalePrior(), fewer=3.0),
    Choice("12 times fewer", ScalePrior(), fewer=12.0),
    Choice("12 times fewer, in turn", ScalePrior(), fewer=12.0, turns=True),
    Choice("narrow noise prior", ScalePrior(noise_sd=0.5)),
    Choice("noise prior around 0", ScalePrior(noise_mean=0.0)),
    Choice("wide image prior", ScalePrior(image_sd=2.0)),
    Choice("two-sided", ScalePrior(lowest=-math.inf)),
    Choice("two-sided, in turn", ScalePrior(lowest=-math.inf), turns=True),
    Choice("two-sided, as scans have it", ScalePrior(image_sd=0.7, image_mean=0.3, lowest=-math.inf)),
    Choice("posterior means", ScalePrior(), mean=True),
)
_MEANS = ("log_likelihood", "rms_z", "cover_68", "cover_95", "crps", "pixel_log_likelihood", "pixel_cover_68", "pixel_cover_95")
Row = dict[str, Any]


def rows(every: list[Subject], views: tuple[int, ...], cache: Path, fit: bool) -> Iterator[Row]:
    """For each scan, number of held-out views and choice; of the first number also with those of a second short fit."""
    for wanted, subject in product(views, every):
        usual, count = wanted == VIEWS[0], len(subject.used)
        k = wanted - (usual and count < _FEW)
        if k * _LEFT > count or not (fit or is_kept(subject, f"{k} even", cache)):
            continue
        found = fitted(subject, k, cache)
        same: Row = {"scan": subject.name, "wanted": wanted, "held_out": k}
        scatter = view_scatter(found)
        for choice in CHOICES:
            yield same | {"choice": choice.name} | scored(found, choice) | scatter
        if usual and ((fit and count <= _ROTATED) or is_kept(subject, f"{k} rotated {_SHORT}", cache)):
            more = together(found, rotated(subject, k, cache, _SHORT))
            yield same | {"choice": ROTATED} | scored(found, AS_IT_IS, more) | scatter
        print(f"{subject.name}, {k} held out", flush=True)


def tell(told: list[Row], k: float, choice: str, scans: set[str] | None = None) -> None:
    """Means over the scans, and how often the ranges held."""
    chosen = [r for r in told if (r["wanted"], r["choice"]) == (k, choice) and (scans is None or r["scan"] in scans)]
    if not chosen:
        return
    means = {n: np.mean([float(r[n]) for r in chosen if n in r]) for n in _MEANS if any(n in r for r in chosen)}
    off = np.sqrt(np.mean([math.log(float(r["rms_z"])) ** 2 for r in chosen]))
    text = f"{k} held out, {choice}, {len(chosen)} scans: " + ", ".join(f"{n} {v:.4g}" for n, v in means.items())
    if "low_95" in chosen[0]:
        held = [np.mean([r[f"low_{n}"] <= r[f"cover_{n}"] <= r[f"high_{n}"] for r in chosen]) for n in ("68", "95")]
        text += ", ranges held in {:.0%} and {:.0%}".format(*held)
    print(f"{text}, rms of log rms z {off:.3f}")


def leave_one_out(told: list[Row], k: int) -> None:
    """The choice that serves all other scans best, and what it is worth on the one that was left out; subsets go together."""
    names = [c.name for c in CHOICES]
    chosen = [r for r in told if r["wanted"] == k and r["choice"] in names]
    scans = sorted({str(r["scan"]) for r in chosen})
    table = {(r["scan"], r["choice"]): float(r["log_likelihood"]) for r in chosen}
    values = np.array([[table[scan, name] for name in names] for scan in scans])
    objects = np.array([scan.split(",")[0] if scan.startswith(_REAL) else scan for scan in scans])
    picks, worth = [], np.zeros(len(scans))
    for one in np.unique(objects):
        out = objects == one
        best = int(values[~out].mean(axis=0).argmax())
        picks.append(names[best])
        worth[out] = values[out, best]
    was = values[:, names.index(AS_IT_WAS.name)]
    counts = ", ".join(f"{name} {picks.count(name)} times" for name in sorted(set(picks)))
    print(f"left out one by one: {worth.mean():.4f} nats a ray against {was.mean():.4f} as it was; chosen: {counts}")


def main(views: tuple[int, ...] = VIEWS, fit: bool = True, cache: Path = CACHE) -> None:
    """Fit, compare, print and record."""
    told = list(rows(list(subjects()), views, cache, fit))
    write(told, FIGURES / "calibration.csv")
    for k in views:
        for choice in (*(c.name for c in CHOICES), ROTATED):
            tell(told, k, choice)
    for k, choice in ((views[0], ROTATED), *((k, AS_IT_IS.name) for k in views[1:])):
        common = {str(r["scan"]) for r in told if (r["wanted"], r["choice"]) == (k, choice)}
        print(f"The same scans as {k}, {choice}:")
        tell(told, views[0], AS_IT_IS.name, common)
    leave_one_out(told, views[0])
    scatter = np.array([float(r["view_scatter"]) for r in told if (r["wanted"], r["choice"]) == (views[0], "raw")])
    print(f"variance of a view's mean square, over that of its rays alone: median {np.median(scatter):.1f}")
    now, before = ([r for r in told if (r["wanted"], r["choice"]) == (views[0], c.name)] for c in (AS_IT_IS, AS_IT_WAS))
    draw(now, before).savefig(FIGURES / "calibration.png", dpi=110)


if __name__ == "__main__":
    tyro.cli(main)
