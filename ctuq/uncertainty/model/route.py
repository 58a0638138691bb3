"""Which way through the linear model the sizes allow: how many directions of the network, what is exact, what is sampled."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ctuq.uncertainty.model.factor import draws_of, products_of, rank_of

EVIDENCE_RAYS = 3072
"""Of so many fitted rays at most, spread evenly, hyperparameters are learned, and exactly, where pixels are as many: they are a
handful, and 25 factorisations of so large a matrix take 20 seconds on one core. From posterior samples of 8,192 rays they took
minutes."""
_REDUCED_WORK = 2e11
"""Up to so many multiplications all rays are reduced to as many numbers as there are pixels, in 12 seconds: the evidence is
then that of all of them, and its matrix no larger."""
NOISE_BY = ("float64", "float32", "cg")
"""How noise and floors are solved: a Cholesky factor, one in float32 that residuals refine, or conjugate gradients."""
_FLOAT64, _FLOAT32 = 12288, 24576
"""Up to so many rays or pixels, whichever are fewer: half a minute and 2.4 GiB; two minutes and 2.3 GiB, twice. Above, steps
of conjugate gradients are cheaper than a second factor."""
EXACT_WORK = 6e11
"""Up to so many multiplications every pixel's own reduction is exact: 20 seconds."""
_SHARE, _POSTERIOR, _DIRECTIONS = 0.4, 0.5, 0.2
"""Of the memory that is left, for factor and evidence, for the posterior, and for its directions alone where the rest of it,
which fewer of them do not change, takes more than its share. As fewer were no cure, 1,950 rays at 64 x 64 kept 557 directions
of 1,114 of 1 GiB and 17 of 0.8, to save a tenth of a GiB, and std was then known to 100 % only."""
_FEWEST = 32
"""Directions that are kept however little memory there is."""
DRAWS = 256
"""Of the posterior, where standard deviations are not exact: to 4.4 % of them then."""
_LEFT_OUT = 2048
"""Rays, at most, that are predicted from all others for a score."""
_HELD_OUT, _FEW_VIEWS, _SOME = 768, 2, 128
"""Of many held-out rays so many on a lattice of the detector, at most; of two views left out so many of each."""
_GOLDEN = (5**0.5 - 1) / 2
_CORRECTION = 100
"""What solves of one right-hand side cost, in right-hand sides of a block (HTC ta at 256 x 256)."""
_WHITENED = 6, 12
"""Arrays of rays by directions in float64 at once, by a factor and by steps. Counted as 4, all views of ta and the tooth took
1.2 times the memory that was planned at 128 x 128, and by steps 1.6 times at 256 x 256; so counted, 1.0 times each."""
_EDGES = 8192
"""Pixels that stand out, at most: with a factor over these conjugate gradients begin, as large as one of as many rays."""
_GRAM = 2**27
"""Bytes of a block of a Gram matrix, which is made by two of them at once."""
_TOGETHER, _FEWEST_TOGETHER, _PIXELS = 64, 8, 2**24
"""Images in a batch, at most and at least, and pixels of all of them."""


@dataclass(frozen=True)
class Route:
    """What is computed exactly, and with how many directions.

    Parameters
    ----------
    pixels, rays, fitted, weights : int
        Of the image, of all used views, of those that are not held out, of the network.
    rank : int
        Directions of the network's factor; the number of pixels for its exact Jacobian.
    exact_evidence : bool
        Else from posterior samples.
    noise_by : str
        One of `NOISE_BY`.
    exact_std : bool
        Each pixel's own reduction by solves, else by draws.
    bytes : int
        Estimated peak memory of the largest stage, beside the fit's.
    together : bool
        Left-out rays are predicted all together, by a dense matrix over them; else some of each view.
    dims : int
        Axes of the image.
    view : int
        Rays of a view, on average.
    """

    pixels: int
    rays: int
    fitted: int
    weights: int
    rank: int
    exact_evidence: bool
    noise_by: str
    exact_std: bool
    bytes: int
    together: bool = True
    dims: int = 2
    view: int = 1

    @property
    def products(self) -> tuple[int, int]:
        """Jacobian-vector and vector-Jacobian products to come."""
        return products_of(self.pixels, self.rank, self.rays, self.dims)

    @property
    def evidence_of(self) -> int:
        """Of how many numbers the evidence is, but for systematic errors."""
        return evidence_numbers(self.pixels, self.fitted) if self.exact_evidence else min(self.fitted, EVIDENCE_RAYS)

    @property
    def left_out(self) -> int:
        """How many rays, at most but for one view's, are predicted from all others for a score."""
        if not self.together:
            return _FEW_VIEWS * _SOME
        return _LEFT_OUT if self.noise_by == "float64" else _LEFT_OUT // 4

    @property
    def left_out_each(self) -> int | None:
        """How many of these are of one view; None for all."""
        return None if self.together else _SOME

    @property
    def held_out(self) -> int:
        """How many held-out rays the scales are learned from, at most."""
        return self.rays if self.together else _HELD_OUT

    @property
    def solves(self) -> int:
        """How many right-hand sides held-out rays and left-out views take after those of all rays."""
        held, views = self.rays - self.fitted, views_among(self.left_out, self.view, self.left_out_each)
        beside = 0 if held == 0 or self.leaves_out(held) else _CORRECTION
        views = min(views, -(-self.rays // self.view))
        return self._left_out(held, self.held_out) + beside + views * self._left_out(self.view, _SOME)

    def _left_out(self, rays: int, some: int) -> int:
        """Right-hand sides of so many rays given all others, of which some are asked for."""
        return rays if self.leaves_out(rays) else self.rank + min(rays, some)

    def leaves_out(self, rays: int) -> bool:
        """Whether so many left-out rays follow from the solution of all, a solve each, or the others are solved anew."""
        return self.together or rays <= _few(self.rank)

    @property
    def reason(self) -> str:
        """One sentence."""
        forward, backward = self.products
        network = (
            f"the network's exact Jacobian ({backward} products)"
            if self.rank == self.pixels
            else f"{self.rank} directions of the network ({forward + backward} products)"
        )
        evidence = "exact evidence" if self.exact_evidence else "evidence from posterior samples"
        some = self.evidence_of == EVIDENCE_RAYS < self.fitted
        evidence += f" of {EVIDENCE_RAYS} rays" if some else ""
        std = "exact standard deviation given these" if self.exact_std else f"{DRAWS} draws for the floors' share of it"
        pixels = "pixels" if self.dims == 2 else "voxels"
        return f"{self.pixels} {pixels} and {self.rays} rays: {network}, {evidence}, {std}"


def route(
    pixels: int,
    rays: int,
    fitted: int,
    weights: int,
    *,
    components: int = 1,
    memory: int | None = None,
    dims: int = 2,
    view: int = 1,
) -> Route:
    """Choose by size, and by memory where that is short: blocks are bounded, and nothing is refused for its size.

    Parameters
    ----------
    pixels, rays, fitted, weights : int
    components : int
        Of the weights' prior.
    memory : int, optional
        Bytes that may be used; None where that is not known.
    dims : int
        Axes of the image.
    view : int
        Rays of a view, on average.
    """
    left = float("inf") if memory is None else float(memory)
    budget = _SHARE * left
    unknowns = min(rays, pixels)
    noise_by = noise_route(unknowns, budget)

    def taken(rank: int) -> float:
        return _posterior_bytes(pixels, rays, rank, dims, noise_by)

    room = max(_POSTERIOR * left, taken(0) + _DIRECTIONS * left)

    def fits(rank: int) -> bool:
        return _factor_bytes(pixels, rays, weights, rank, components) <= budget and taken(rank) <= room

    rank = _most(rank_of(pixels, rays, dims), fits)
    evidence = 8 * (components + 14) * evidence_numbers(pixels, fitted) ** 2
    exact_evidence = evidence <= budget
    exact_std = noise_by == "float64" and float(unknowns) ** 2 * pixels <= EXACT_WORK
    peak = max(
        _factor_bytes(pixels, rays, weights, rank, components), _evidence_bytes(pixels, fitted, rank, evidence, exact_evidence)
    )
    together = (noise_by == "float64" and dims == 2) or rays - fitted <= _few(rank)
    most = int(max(peak, taken(rank)))
    return Route(pixels, rays, fitted, weights, rank, exact_evidence, noise_by, exact_std, most, together, dims, view)


def evidence_numbers(unknowns: int, rays: int) -> int:
    """Of how many numbers the evidence of so many rays is: of one for each pixel and systematic error, or of some rays."""
    some = min(rays, EVIDENCE_RAYS)
    return unknowns if unknowns < some and float(rays) * unknowns**2 <= _REDUCED_WORK else some


def views_among(rays: int, view: float, each: int | None = None) -> int:
    """How many views of so many rays, of each of which all or so many are predicted, make up a number of rays; one at least."""
    return max(1, int(rays / min(view, each or view)))


def some_of(rays: int, most: int) -> Tensor:
    """Indices of so many rays at most, spread over all: over the views, and over the columns of the detector.

    Of each stretch another place is taken, by the golden ratio. Every so many-th ray of 1,024, 1,536 or 3,072 views would be of
    three columns, two or one.
    """
    if rays <= most:
        return torch.arange(rays)
    stretch, i = rays / most, torch.arange(most, dtype=torch.float64)
    return (i * stretch + (i * _GOLDEN) % 1 * (stretch - 1)).long()


def _few(rank: int) -> int:
    """So many left-out rays take no more solves than the others by themselves, one for each direction, and some of the rays."""
    return rank + _HELD_OUT


def images_together(pixels: int) -> int:
    """Images in a batch: 64 of 512 x 512 pixels take 128 MiB in float64, and there are half a dozen such batches at once.

    Their rays are solved together, and the more there are the fewer steps that takes.
    """
    return min(_TOGETHER, max(_FEWEST_TOGETHER, _PIXELS // pixels))


def _most(wanted: int, fits: Callable[[int], bool]) -> int:
    """So many directions as are wanted, else the most that fit, and some in any case."""
    if wanted <= _FEWEST or fits(wanted):
        return wanted
    return max(_FEWEST, _FEWEST + bisect_left(range(_FEWEST, wanted), True, key=lambda rank: not fits(rank)) - 1)


def noise_route(unknowns: int, budget: float = float("inf")) -> str:
    """Which of `NOISE_BY` so many rays or pixels, whichever are fewer, take within so many bytes, or with the fewest."""
    for name, most in zip(NOISE_BY, (_FLOAT64, _FLOAT32), strict=False):
        if unknowns <= most and _noise_bytes(unknowns, name) <= budget:
            return name
    return "float32" if unknowns <= _EDGES else "cg"


def _noise_bytes(unknowns: int, noise_by: str) -> float:
    made = {"float64": 16, "float32": 4, "cg": 0}[noise_by] * float(unknowns) ** 2
    over = min(unknowns, _EDGES) if noise_by == "cg" else unknowns
    return made + 2 * min(_GRAM, 8 * over**2) + 4 * over**2 * (noise_by == "cg")


def _posterior_bytes(pixels: int, rays: int, rank: int, dims: int, noise_by: str) -> float:
    unknowns = pixels if noise_by == "cg" else min(rays, pixels)
    taken = _noise_bytes(unknowns, noise_by) + 8 * _WHITENED[noise_by == "cg"] * rays * rank
    taken += 8 * 2 * _HELD_OUT * (rays + rank)
    taken += 8 * images_together(pixels) * (pixels + rank) * 8 + 8 * 512 * pixels + 4 * pixels * rank * (rank < pixels)
    return taken + _local_bytes(pixels, rays, rank, dims)


def _factor_bytes(pixels: int, rays: int, weights: int, rank: int, components: int) -> float:
    """Rows of weights in float32; the basis, its rays and each component of the prior in float64."""
    kept = 8 * (components + 2) * rank**2 + 8 * rays * rank
    if rank == pixels:
        return 4 * rank * weights + kept
    return 4 * rank * weights + 8 * pixels * rank + kept


def _local_bytes(pixels: int, rays: int, rank: int, dims: int) -> float:
    """The draws of what a factor leaves out, and the rays of its covariance: each meets the pixels beside it as well.

    An entry takes 36 bytes in SciPy, by rows and by columns. Of 30 views at 64 and 128 pixels there are 1.4 and 5.5 million.
    """
    draws, radius = draws_of(pixels, rays, dims)
    if rank == pixels or radius == 0:
        return 0.0
    return 8 * 3 * draws * pixels + 36 * 1.3 * (4 * radius + 1) * rays * pixels**0.5


def _evidence_bytes(pixels: int, fitted: int, rank: int, dense: int, exact: bool) -> float:
    basis = 4 * pixels * rank * (rank < pixels) + 8 * fitted * rank
    if exact:
        return basis + dense
    return basis + 8 * 6 * 17 * (3 * pixels + rank) + 8 * 3 * min(512, fitted // 2) * fitted
