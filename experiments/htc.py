"""Whether error bars hold the truth of real discs with known holes: the 21 of the Helsinki Tomography Challenge 2022.

``python -m experiments.htc FOLDER`` takes ``htc2022_01a_full.mat`` to ``07c`` and their ``_recon_fbp_seg.png`` from FOLDER
(doi:10.5281/zenodo.6984868, CC BY 4.0). Each disc is seen twice: over the arc that the challenge gave of it, 90 degrees of
level 1 down to 30 of level 7, by every sixth view; and over the full turn by every 24th. It goes on where it stopped, and
``figures/htc.csv`` gets a row for each disc, way and method: pixels of the object, edges by whether a ray runs along them,
how many pixels are told right as material or not, and how many 95 % intervals of areas, centres and widths of holes hold what
the segmentation of all 721 views says.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tyro.conf import Positional

import ctuq
from ctuq.scores.gaussian import Z95, gaussian_scores
from experiments import FIGURES
from experiments.engine.rows import Row, Rows
from experiments.limited_angle import seen_edges
from experiments.quantities import real

OUTPUT = FIGURES / "htc.csv"
FIRST = {
    "a": (0, 90, 50, 50, 50, 0, 75),
    "b": (0, 90, 40, 10, 35, 90, 0),
    "c": (0, 60, 0, 70, 0, 20, 20),
}
"""Where the arcs begin that the challenge gave, degrees, of levels 1 to 7."""
_WIDEST, _NARROWER = 90, 10
DISCS = tuple(f"{level:02d}{letter}" for letter in FIRST for level in range(1, 8))
_THINNED = {"arc": 6, "turn": 24, "many": 6}
_DRAWN = (("02c", "turn"), ("01c", "arc"), ("04c", "arc"), ("06c", "arc"))
_TOLD = ("cover_68", "cover_95", "rms_z", "log_likelihood")
_BY = {"dip": "network", "tv": "`tv`"}
_ASKED = {"share of an area": "areas", "centre": "centres", "thickness": "widths"}


def seen(folder: Path, disc: str, way: str) -> ctuq.Scan:
    """The views of a disc, such as "07c", over its "arc", or few or "many" of the full turn, with the truth."""
    stem = folder / f"htc2022_{disc}"
    scan = ctuq.read(f"{stem}_full.mat", truth=f"{stem}_recon_fbp_seg.png")
    if way == "arc":
        level = int(disc[:2])
        inside = np.rad2deg(scan.geometry.angles) - FIRST[disc[2]][level - 1]
        scan = scan.select(np.flatnonzero((inside > -0.01) & (inside < _WIDEST - _NARROWER * (level - 1) + 0.01)))
    return scan.every(_THINNED[way])


def measure(scan: ctuq.Scan, size: int, method: str) -> Row:
    """Scores against the truth by kind of pixel, and how many intervals of what holes are asked for hold it."""
    begun = time.process_time()
    result = ctuq.reconstruct(scan, method, size=size)
    row: Row = {"cpu_seconds": time.process_time() - begun, "held_out_rms_z": result.scores["held_out"]["rms_z"]}
    assert result.truth is not None and result.std is not None and scan.truth is not None and scan.grid is not None
    residual, variance = result.truth - result.mean, result.std.astype(np.float64) ** 2
    along, across = seen_edges(result.truth, result.scan.geometry)
    half = float(scan.truth.max()) / 2
    kinds = {"object": result.truth > 0.1 * half, "edges": along, "edges_unseen": across}
    for kind, chosen in kinds.items():
        scores = gaussian_scores(residual[chosen], variance[chosen]) if chosen.any() else dict.fromkeys(_TOLD, float("nan"))
        row |= {f"{kind}_{name}": scores[name] for name in _TOLD}
    row["rmse"] = float(np.sqrt(np.mean(residual[kinds["object"]] ** 2))) / (2 * half)
    row["matthews"] = _matthews(result.mean > half, result.truth > half)
    asked, held = Counter[str](), Counter[str]()
    for answer in real.rows(result, scan.truth.astype(np.float64), scan.grid):
        asked[answer["kind"]] += 1
        held[answer["kind"]] += abs(answer["value"] - answer["truth"]) <= Z95 * answer["u"]
    for kind, name in _ASKED.items():
        row |= {f"{name}_asked": asked[kind], f"{name}_held": held[kind]}
    return row


def _matthews(told: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """The challenge's score: correlation of two maps of material."""
    return float(np.corrcoef(told.ravel(), true.ravel())[0, 1])


def draw(folder: Path, size: int) -> Figure:
    """Truth, image, error and standard deviation on one scale, of three discs over their arcs and of one around."""
    figure = Figure(figsize=(8.2, 8), layout="constrained")
    axes = figure.subplots(len(_DRAWN), 4, sharex=True, sharey=True)
    for row, (disc, way) in zip(axes, _DRAWN, strict=True):
        result = ctuq.reconstruct(seen(folder, disc, way), size=size)
        assert result.truth is not None and result.std is not None
        top, error = float(result.truth.max()), np.abs(result.truth - result.mean)
        held = 100 * np.mean((error <= Z95 * result.std)[result.truth > 0.05 * top])
        shown = ((result.truth, 1.2 * top), (result.mean, 1.2 * top), (error, top), (result.std, top))
        for place, (image, limit) in zip(row, shown, strict=True):
            drawn = place.imshow(image, cmap="viridis", vmin=0, vmax=limit, extent=result.grid.extent)
            place.tick_params(labelsize=6)
            figure.colorbar(drawn, ax=place, shrink=0.8).ax.tick_params(labelsize=6)
        degrees = "full turn" if way == "turn" else f"{_WIDEST - _NARROWER * (int(disc[:2]) - 1)}°"
        row[0].set_ylabel(f"{disc}, {degrees}, {held:.0f} %\ny (mm)", fontsize=8)
    for place, title in zip(axes[0], ("truth (1/mm)", "reconstruction", "|error|", "standard deviation"), strict=True):
        place.set_title(title, fontsize=9)
    return figure


def main(
    folder: Positional[Path],
    size: int = 64,
    methods: tuple[str, ...] = ("tv", "dip"),
    ways: tuple[str, ...] = ("arc", "turn"),
    discs: str = "abc",
    output: Path = OUTPUT,
    picture: bool = False,
) -> None:
    """Score what is not there yet.

    Parameters
    ----------
    folder
        With the files of the challenge.
    size
        Pixels of a side.
    methods
        Whose error bars are judged.
    ways
        Over the arc of the disc's level, or the full turn.
    discs
        Letters: each has a disc of every level.
    output
        The table.
    picture
        Draw four reconstructions, in ``figures/htc.png``.
    """
    kept = Rows(output)
    for method in methods:
        for disc in sorted((disc for disc in DISCS if disc[2] in discs), key=lambda disc: discs.index(disc[2])):
            for way in ways:
                key: Row = {"disc": disc, "way": way, "method": method, "size": size}
                if kept.where(**key):
                    continue
                scan = seen(folder, disc, way)
                kept.add([key | {"views": scan.n_angles} | measure(scan, size, method)])
                print({k: v for k, v in kept.rows[-1].items() if "log" not in k and "68" not in k}, flush=True)
    print(table(kept, size))
    if picture:
        draw(folder, size).savefig(FIGURES / "htc.png", dpi=110)


def table(kept: Rows, size: int) -> str:
    """What 95 % intervals hold, by how the discs are seen and by which method; of pixels the mean over discs."""
    lines = [
        "| discs seen over | by | object, worst disc, rms z | edges along rays, others | areas | centres | widths | Matthews |",
        "|---|" + 7 * "---|",
    ]
    for told, way, levels in (("a full turn", "turn", "1234567"), ("70 to 90°", "arc", "123"), ("30 to 60°", "arc", "4567")):
        for method, name in _BY.items():
            rows = [row for row in kept.where(way=way, method=method, size=size) if str(row["disc"])[1] in levels]
            if rows:
                lines.append(f"| {told}, {len(rows)} | {name} | {' | '.join(_cells(rows))} |")
    return "\n".join(lines)


def _cells(rows: Sequence[Row]) -> Iterator[str]:
    def all_of(name: str) -> NDArray[np.float64]:
        return np.array([float(row[name]) for row in rows])

    held = 100 * all_of("object_cover_95")
    yield f"{held.mean():.0f} %, {held.min():.0f} %, {all_of('object_rms_z').mean():.2f}"
    along, across = (100 * np.nanmean(all_of(f"{kind}_cover_95")) for kind in ("edges", "edges_unseen"))
    yield f"{along:.0f}, {across:.0f} %"
    for name in _ASKED.values():
        asked, held = (all_of(f"{name}_{what}").sum() for what in ("asked", "held"))
        yield f"{100 * held / max(asked, 1):.0f} % of {asked:.0f}"
    yield f"{all_of('matthews').mean():.2f}"


if __name__ == "__main__":
    tyro.cli(main)
