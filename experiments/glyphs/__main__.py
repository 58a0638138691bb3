"""Kinds of error bars on glyphs of 28 x 28 pixels: ``python -m experiments.glyphs --images 50``.

``--folder`` takes MNIST's or Kuzushiji-MNIST's test images in place of simulated glyphs. What is done is kept in
``figures/glyphs.csv``; run again, it goes on; ``--draw`` draws the figure and prints the table from it alone.
"""

import time
from pathlib import Path

import tyro

import ctuq
from ctuq.scores.gaussian import sampled_patch_log_likelihood
from experiments import FIGURES
from experiments.engine.rows import Row, Rows
from experiments.glyphs.drawing import draw as drawn
from experiments.glyphs.drawing import table_of
from experiments.glyphs.objects import SIZE, images_of, scan_of
from experiments.peers.kinds import OURS, chosen

TABLE = FIGURES / "glyphs.csv"
PATCHES = (1, 2, 4, 7, 14)
_SCORES = ("psnr", "ssim", "crps", "cover_68", "cover_95", "rms_z")
_OBJECT = ("log_likelihood_object", "crps_object", "cover_68_object", "cover_95_object", "rms_z_object", "rank_correlation")


def main(
    images: int = 5,
    angles: tuple[int, ...] = (5, 10, 20, 30),
    noises: tuple[float, ...] = (0.05, 0.1),
    only: str | None = None,
    folder: Path | None = None,
    draw: bool = False,
) -> None:
    """Make the rows that are missing, image by image, and draw the figure.

    Parameters
    ----------
    images : int
    angles : tuple of int
    noises : tuple of float
        Over the mean projection.
    only : str, optional
        Kinds of error bars, names with semicolons between them; by default all.
    folder : path, optional
        With ``t10k-images-idx3-ubyte.gz`` of MNIST or Kuzushiji-MNIST.
    draw : bool
        Make none.
    """
    rows, (name, pixels) = Rows(TABLE), ("glyph", None) if folder is None else images_of(folder)
    wanted = [(i, n, a, kind) for i in range(images) for n in noises for a in angles for kind in chosen(only)]
    for image, noise, count, kind in [] if draw else wanted:
        key: Row = {"set": name, "image": image, "noise": noise, "angles": count, "kind": kind}
        if rows.where(**key):
            continue
        rows.add([key | measured(scan_of(image, count, noise, pixels), kind, image)])
        print(*key.values(), f"{rows.rows[-1]['log_likelihood_object']:.3f}", flush=True)
    drawn(TABLE)
    print(table_of(TABLE))


def measured(scan: ctuq.Scan, kind: str, seed: int) -> Row:
    """Seconds and scores against the truth of one reconstruction."""
    method, bars = OURS[kind]
    begin = time.process_time()
    result = ctuq.reconstruct(scan, method, size=SIZE, uncertainty=bars, samples=256, seed=seed, threads=1)
    row: Row = {"seconds": time.process_time() - begin}
    truth = result.scores["truth"]
    row |= {name: truth[name] for name in (*_SCORES, *_OBJECT)}
    return row | patches_of(result)


def patches_of(result: ctuq.Result) -> dict[str, float]:
    """Log-likelihood in nats a pixel, jointly in patches: by the covariance, by samples, or of independent pixels."""
    truth, names = result.scores["truth"], [f"log_likelihood_patch_{p}" for p in PATCHES]
    if "log_likelihood_full" in truth:
        return {name: truth[name] for name in (*names, "log_likelihood_full")}
    if result.samples is None:
        return dict.fromkeys((*names, "log_likelihood_full"), truth["log_likelihood"])
    assert result.truth is not None
    error, deviations = result.truth - result.mean, result.samples - result.mean
    sizes = dict(zip((*names, "log_likelihood_full"), (*PATCHES, max(error.shape)), strict=True))
    return {name: sampled_patch_log_likelihood(error, deviations, size) for name, size in sizes.items()}


if __name__ == "__main__":
    tyro.cli(main)
