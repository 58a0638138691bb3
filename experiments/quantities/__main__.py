"""Fit the scans, in an hour or two, ask each for all quantities, and print how often 95 % intervals hold the truth.

``python -m experiments.quantities``; ``--no-fit`` takes the scans that were fitted, ``--anew`` asks them again after changes
of quantities. Fits and answers are kept in ``runs/quantities``: run again, the command goes on. Half of the
simulated objects sized what `ctuq.quantities.discrepancy` holds, the other half tests it; ``figures/quantities.csv`` has both.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import tyro

import ctuq
from ctuq.scores.gaussian import Z95
from experiments import FIGURES
from experiments.quantities import asked, real
from experiments.quantities.drawing import draw
from experiments.quantities.objects import CHANGE, FIELD, HALVES, KEPT, Subject, again, discs, fitted, is_kept, subjects
from experiments.tables import write

KINDS = ("mean", "contrast", "point of a profile", "change of a mean", "share of an area", "centre", "thickness")
MODEL = ("posterior", "noise of the rays", "missing views", "fine detail", "calibration")
"""Sources that the posterior knows by itself."""
_GROUPS = ("noise", "views", "radius", "share", "size")
_REGIONS = (CHANGE, ctuq.quantities.Circle(-6, -3, 4), ctuq.quantities.Circle(0, 0, 12), ctuq.quantities.Circle(5, -8, 2))


def answers(fit: bool, anew: bool, views: str) -> Iterator[asked.Row]:
    """Every answer, with what it was asked of; of scans of some views alone, if they are named."""
    for subject in subjects():
        if views in subject.views and (fit or is_kept(subject.name)):
            yield from _remembered(subject.name, anew, lambda s=subject: _of(s), noise=subject.noise, views=subject.views,
                                   half=subject.half, size=subject.size, phantom=subject.phantom)  # fmt: skip
    for first, second in again():
        if views in first.views and (fit or (is_kept(first.name) and is_kept(second.name))):
            more = {"noise": first.noise, "views": first.views, "half": first.half, "size": first.size}
            yield from _remembered(second.name, anew, lambda a=first, b=second: _changes(a, b), **more)
    for name in ("ta", "tb") if not views else ():
        if fit or is_kept(f"{name}, 64"):
            yield from _remembered(f"{name}, 64", anew, lambda n=name: _real(n), half="real")


def _of(subject: Subject) -> Iterator[asked.Row]:
    fine = subject.fine()
    grid = ctuq.VolumeGrid(fine.shape, FIELD / len(fine))
    return asked.rows(fitted(subject), fine, grid, np.random.default_rng(subject.seed))


def _changes(first: Subject, second: Subject) -> Iterator[asked.Row]:
    before, after = first.fine(), second.fine()
    grid = ctuq.VolumeGrid(before.shape, FIELD / len(before))
    return asked.differences(fitted(first), fitted(second), before, after, grid, list(_REGIONS))


def _real(name: str) -> Iterator[asked.Row]:
    result, fine, grid = discs(name)
    return real.rows(result, fine, grid)


def _remembered(name: str, anew: bool, make: Callable[[], Iterable[asked.Row]], **more: object) -> list[asked.Row]:
    path: Path = KEPT / f"{name}.json"
    if anew or not path.is_file():
        path.write_text(json.dumps(list(make())))
        print(f"asked: {name}", flush=True)
    return [each | more | {"scan": name} for each in json.loads(path.read_text())]


def deviations(rows: list[asked.Row], model_alone: bool = False) -> np.ndarray:
    """Errors over standard uncertainties; of the part that the posterior knows by itself."""
    known = [sum(r.get(source) or 0.0 for source in MODEL) for r in rows] if model_alone else [r["u"] ** 2 for r in rows]
    return np.array([r["value"] - r["truth"] for r in rows]) / np.sqrt(np.maximum(known, 1e-300))


def held(rows: list[asked.Row], model_alone: bool = False) -> float:
    """Share of 95 % intervals that hold the truth; NaN of none."""
    return float(np.mean(np.abs(deviations(rows, model_alone)) <= Z95)) if rows else float("nan")


def summary(rows: list[asked.Row]) -> Iterator[dict[str, object]]:
    """A row for each quantity, of all and of each group."""
    for kind in KINDS:
        of_kind = [r for r in rows if r["kind"] == kind]
        groups = [("all", "", of_kind)]
        for group in _GROUPS:
            values = sorted({r[group] for r in of_kind if group in r}, key=str)
            groups += [(group, value, [r for r in of_kind if r.get(group) == value]) for value in values]
        groups.append(("real discs", "", [r for r in of_kind if r["half"] == "real"]))
        for group, value, some in groups:
            if some:
                yield {"quantity": kind, "group": group, "value": value} | _figures(some, group == "real discs")


def _figures(some: list[asked.Row], is_real: bool) -> dict[str, object]:
    parts = {half: [r for r in some if r["half"] == half] for half in ("real",) if is_real} or {
        half: [r for r in some if r["half"] == half] for half in HALVES
    }
    told: dict[str, object] = {}
    for half, part in parts.items():
        name = "tested" if half == "real" else half
        told |= {f"{name}_asked": len(part), f"{name}_cover_95": held(part)}
    last = list(parts.values())[-1]
    told |= {"tested_cover_95_posterior_alone": held(last, True)}
    if last:
        told |= {"tested_rms_z": float(np.sqrt(np.mean(deviations(last) ** 2)))}
        told |= {"median_uncertainty": float(np.median([r["u"] for r in last])), "unit": last[0]["unit"]}
    return told


def probabilities(rows: list[asked.Row]) -> Iterator[str]:
    """How often what is told to be so probable is so."""
    some = [r for r in rows if r["kind"] == "probability"]
    p, y = (np.array([r[key] for r in some]) for key in ("value", "truth"))
    for low, high in ((0, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 0.95), (0.95, 1.01)):
        inside = (p >= low) & (p < high)
        if inside.any():
            yield f"probability {100 * p[inside].mean():.0f} %: true in {100 * y[inside].mean():.0f} % of {inside.sum()}"


def main(fit: bool = True, anew: bool = False, views: str = "") -> None:
    """Fit, ask, print and record; ``--views "90 degrees"``: scans of such views alone, in ``figures/quantities_arcs.csv``."""
    rows = list(answers(fit, anew, views))
    table = list(summary(rows))
    write(table, FIGURES / ("quantities_arcs.csv" if views else "quantities.csv"), digits=4)
    for each in table:
        told = [
            f"{half} {100 * each[f'{half}_cover_95']:.1f} % of {each[f'{half}_asked']}"
            for half in HALVES
            if f"{half}_asked" in each
        ]
        alone = f"posterior alone {100 * each['tested_cover_95_posterior_alone']:.1f} %"
        print(f"{each['quantity']}, {each['group']} {each['value']}: {', '.join(told)}; {alone}")
    print(*probabilities(rows), sep="\n")
    print(f"{len({r['scan'] for r in rows})} scans")
    if views:
        return
    draw(table).savefig(FIGURES / "quantities.png", dpi=110)


if __name__ == "__main__":
    tyro.cli(main)
