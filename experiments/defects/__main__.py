"""Small defects, with and without the error bars: ``python -m experiments.defects --objects 30``.

At every site the mean of a disc is compared with that of the object as it was meant to be. Half of the sites have a defect, and
all have artefacts of few views. Detection is by the size of the difference, or by its size over the standard deviation that the
error bars give it. What is done is kept in ``figures/defects.csv``; run again, it goes on; ``--draw`` draws figure and table
from it alone.
"""

import numpy as np
import tyro
from numpy.typing import NDArray

import ctuq
from experiments import FIGURES
from experiments.defects.drawing import draw as drawn
from experiments.defects.drawing import table_of
from experiments.defects.objects import SIZE, Subject, subject_of
from experiments.engine.rows import Row, Rows
from experiments.peers.kinds import OURS, chosen

TABLE = FIGURES / "defects.csv"


def main(
    objects: int = 10,
    phantoms: tuple[str, ...] = ("rectangles", "ellipses"),
    depth: float = 0.15,
    only: str = "tv, edge prior;tv, noise;tv, bootstrap;dip, laplace",
    draw: bool = False,
) -> None:
    """Make the rows that are missing, object by object, and draw the figure.

    Parameters
    ----------
    objects : int
        Of each phantom.
    phantoms : tuple of str
    depth : float
        What a defect lacks of the attenuation about it.
    only : str
        Kinds of error bars, names with semicolons between them.
    draw : bool
        Make none.
    """
    rows = Rows(TABLE)
    wanted = [(seed, phantom, kind) for seed in range(objects) for phantom in phantoms for kind in chosen(only)]
    for seed, phantom, kind in [] if draw else wanted:
        key: Row = {"phantom": phantom, "seed": seed, "depth": depth, "kind": kind}
        subject = subject_of(phantom, seed, depth)
        if subject is None or rows.where(**key):
            continue
        method, bars = OURS[kind]
        result = ctuq.reconstruct(subject.scan, method, size=SIZE, uncertainty=bars, samples=256, seed=seed, threads=1)
        facts: Row = {"rank_correlation": result.scores["truth"]["rank_correlation"], "ause": sparsification(result)}
        differences, stds = measured(result, subject)
        sites = zip(subject.defects.tolist(), differences.tolist(), stds.tolist(), strict=True)
        rows.add([key | {"site": i, "defect": int(d), "difference": c, "std": s} | facts for i, (d, c, s) in enumerate(sites)])
        print(*key.values(), f"AUSE {facts['ause']:.3f}", flush=True)
    drawn(TABLE)
    print(table_of(TABLE))


def measured(result: ctuq.Result, subject: Subject) -> tuple[NDArray, NDArray]:
    """Differences of the discs' means from the nominal ones (site,), and their standard deviations by the samples."""
    flat = subject.discs.reshape(len(subject.discs), -1)
    draws = (result.samples - result.mean).reshape(len(result.samples), -1) @ flat.T
    return flat @ (result.mean - subject.nominal).ravel(), np.sqrt(np.mean(draws**2, axis=0))


def sparsification(result: ctuq.Result) -> float:
    """Area between two curves, rms error of the pixels left over that of all: the least sure left out first, or the worst.

    Ilg et al. 2018; 0 is a map that ranks pixels as their errors do, and leaving out at random gives about the largest value.
    """
    assert result.truth is not None and result.std is not None
    error = np.abs(result.truth - result.mean).ravel().astype(np.float64)

    def curve(order: NDArray) -> NDArray:
        left = np.cumsum(error[order] ** 2) / np.arange(1, error.size + 1)
        return np.sqrt(left / left[-1])

    return float(np.mean(curve(np.argsort(result.std.ravel(), kind="stable")) - curve(np.argsort(error, kind="stable"))))


if __name__ == "__main__":
    tyro.cli(main)
