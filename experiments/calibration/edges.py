"""Should error bars have one scale at edges and one in flat parts? ``python -m experiments.calibration.edges``.

Of each scan the held-out views teach an image scale, a noise scale and, beside them, how much more the image varies at its
edges than in its flat parts; the posterior given all views is then scored on rays of views that were used for nothing, on the
true pixels, and on means over discs. With ``T`` the root of that ratio at edges, the image varies by ``T P T`` with P the
posterior given the fitted views, or by the posterior of a prior ``T C T``. ``figures/calibration_edges.csv`` has a row a scan
and choice; linear models are kept in ``runs``, so that the command goes on where it was stopped.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
import tyro
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.ndimage import binary_dilation

from ctuq.scores.gaussian import gaussian_scores
from ctuq.uncertainty.calibration.edges import RATIOS, SLOPE, EdgeScale, edge_map
from ctuq.uncertainty.calibration.scales import FEWER, ScalePrior, correlation_time
from ctuq.uncertainty.calibration.turns import Turns, in_turn
from experiments import FIGURES, ROOT
from experiments.calibration.dense import Dense, cases
from experiments.tables import write

OUTPUT, KEPT = FIGURES / "calibration_edges.csv", ROOT / "runs" / "edges"
_IMAGE, _NOISE = np.linspace(0, 5, 51), np.linspace(-6, 4, 51)
_OBJECT = 0.05
"""Of the largest value the object's least."""
_DISCS, _RADII = 60, (2.0, 6.0)
_SCORES = ("log_likelihood", "rms_z", "cover_68", "cover_95")


@dataclass(frozen=True)
class Choice:
    """How the ratio is learned.

    Parameters
    ----------
    name : str
    where : {"posterior", "after", "prior"}
        What T stands around: the posterior given the fitted views, by which it is learned; the same, and in the end that given
        all views; or the prior.
    soft : bool
        Whether T goes smoothly from edges to flat parts.
    sd : float
        Of the prior of the ratio's logarithm, Student's t of 2 degrees; 0 leaves the ratio at 1.
    bounded : bool
        Whether both parts' variances only grow.
    by_evidence : bool
        Whether the fitted rays teach the ratio, in place of those held out.
    """

    name: str
    where: str = "posterior"
    soft: bool = True
    sd: float = 1.0
    bounded: bool = False
    by_evidence: bool = False


CHOICES = (
    Choice("global", sd=0.0),
    Choice("T P T, hard map", soft=False),
    Choice("T P T"),
    Choice("T P T given all", where="after"),
    Choice("T P T given all, both grow", where="after", bounded=True),
    Choice("T P T given all, narrow prior", where="after", sd=0.3),
    Choice("prior T C T", where="prior"),
    Choice("prior T C T, by evidence", where="prior", by_evidence=True),
)


@dataclass(frozen=True, eq=False)
class Asked:
    """Linear functionals of the image: unseen rays, pixels, means over discs."""

    rays: sp.csr_array
    discs: sp.csr_array

    @classmethod
    def of(cls, case: Dense) -> "Asked":
        """Discs whose middles lie in the object, of 2 to 6 pixels."""
        rng, (y, x) = np.random.default_rng(0), np.indices(case.image.shape)
        inside = np.argwhere(case.image > _OBJECT * case.image.max())
        middles, radii = inside[rng.integers(len(inside), size=_DISCS)], rng.uniform(*_RADII, _DISCS)
        rows = [(np.hypot(y - a, x - b) <= r).ravel() for (a, b), r in zip(middles, radii, strict=True)]
        return cls(case.unseen, sp.csr_array([row / row.sum() for row in rows]))

    def variances(self, name: str, P: NDArray) -> NDArray:
        """Of some functionals under a covariance."""
        if name == "pixels":
            return P.diagonal()
        rows = self.rays if name == "rays" else self.discs
        return np.asarray((rows @ P * rows.toarray()).sum(1))


@dataclass(frozen=True, eq=False)
class Given:
    """What the fitted rays leave of the image for one ratio.

    Parameters
    ----------
    turns : Turns
        The held-out views.
    held : array, shape (h, h)
        Covariance of their rays, with the noise.
    gains, variances : dict of str to array
        Covariance with the held-out rays, and variance, of "rays", "pixels" and "discs".
    evidence : float
        Of the fitted rays; NaN where it was not asked for.
    """

    turns: Turns
    held: NDArray
    gains: dict[str, NDArray]
    variances: dict[str, NDArray]
    evidence: float


class Scan:
    """A case with what all choices share."""

    def __init__(self, case: Dense):
        self.case, self.asked = case, Asked.of(case)
        self._kept: dict[tuple[str, bool, float], Given] = {}

    def map(self, soft: bool) -> torch.Tensor:
        """1 at edges, 0 in flat parts, (y, x)."""
        image = self.case.image
        return edge_map(torch.from_numpy(image)) if soft else torch.from_numpy(edges_of(image).astype(float))

    def root(self, soft: bool, ratio: float) -> NDArray:
        """T of a ratio's logarithm, (d,)."""
        return EdgeScale(self.map(soft), ratio).root.numpy().ravel()

    def given(self, where: str, soft: bool, ratio: float) -> Given:
        """By a ratio's logarithm; the geometric mean of both variances stays."""
        where = "prior" if where == "prior" else "posterior"
        key = (where, soft, ratio) if ratio else ("posterior", False, 0.0)
        if key not in self._kept:
            T = self.root(soft, ratio)
            P, evidence = (self.posterior[0] * T * T[:, None], math.nan) if where == "posterior" else self._after(T)
            self._kept[key] = self._told(P, evidence if ratio else self.posterior[1])
        return self._kept[key]

    @cached_property
    def posterior(self) -> tuple[NDArray, float]:
        """Covariance given the fitted rays, and their evidence."""
        return self._after(np.ones(len(self.case.prior)))

    def _after(self, T: NDArray) -> tuple[NDArray, float]:
        """Posterior covariance given the fitted rays under the prior ``T C T``, and their evidence."""
        C, B = self.case.prior * T * T[:, None], self.case.fitted
        seen = B @ C
        K = seen @ B.T
        L = cholesky(K + np.eye(len(K)), lower=True, overwrite_a=True)
        evidence = -0.5 * np.sum(solve_triangular(L, self.case.target, lower=True) ** 2) - np.log(L.diagonal()).sum()
        root = solve_triangular(L, seen, lower=True, overwrite_b=True)
        return C - root.T @ root, float(evidence)

    def _told(self, P: NDArray, evidence: float) -> Given:
        case, (views, columns) = self.case, self.case.held_off.shape
        across = case.held @ P
        held = across @ case.held.T + np.eye(views * columns)
        of = torch.arange(views).repeat_interleave(columns)
        found = in_turn(torch.from_numpy((held + held.T) / 2), torch.from_numpy(case.held_off.ravel()), of)
        turns = Turns(*(part.numpy().reshape(-1, views, columns) for part in found))
        rows = {"rays": self.asked.rays, "discs": self.asked.discs}
        gains = {name: R @ across.T for name, R in rows.items()} | {"pixels": across.T}
        variances = {name: self.asked.variances(name, P) for name in ("rays", "discs", "pixels")}
        return Given(turns, held, gains, variances, evidence)


def edges_of(image: NDArray) -> NDArray[np.bool_]:
    """Where a pixel or a neighbour of it lies on a slope."""
    return binary_dilation(np.hypot(*np.gradient(image)) > SLOPE * np.ptp(image))


@dataclass(frozen=True)
class Learned:
    """Logarithms of image scale, noise scale and ratio."""

    image: float
    noise: float
    ratio: float


def learn(scan: Scan, choice: Choice, prior: ScalePrior) -> Learned:
    """Posterior medians: of the ratio with the scales integrated out, then of the scales by that ratio."""
    first = scan.given("posterior", False, 0.0)
    off, variance = first.turns.at(0.0)
    temper = 1 / (FEWER * correlation_time(off / np.sqrt(variance)))
    ratios = RATIOS if choice.sd else np.zeros(1)

    def density(ratio: float) -> NDArray:
        turns = scan.given(choice.where, choice.soft, ratio).turns
        rows = []
        for a in _IMAGE:
            squares, logs = turns.sums(_NOISE - a)
            rows.append(-0.5 * temper * (squares * math.exp(-a) + logs + off.size * a))
        out = np.array(rows) - prior.energy(_IMAGE, _NOISE)
        out[[0, -1]] -= math.log(2)
        if choice.bounded:
            out[abs(ratio) / 2 - 1e-9 > _IMAGE] = -np.inf
        return out - 1.5 * math.log1p((ratio / choice.sd) ** 2 / 2) if choice.sd else out

    if choice.by_evidence:
        facts = [scan.given("prior", choice.soft, r).evidence - 1.5 * math.log1p((r / choice.sd) ** 2 / 2) for r in ratios]
        ratio = _between(ratios, np.array(facts))
    else:
        ratio = _between(ratios, np.array([_log_sum(density(r)) for r in ratios]))
    weights = density(ratio)
    weights = np.exp(weights - weights.max())
    return Learned(_median(_IMAGE, weights.sum(1)), _median(_NOISE, weights.sum(0)), ratio)


def _between(ratios: NDArray, heights: NDArray) -> float:
    """Median of a density whose logarithm is known at these ratios, and smooth."""
    if len(ratios) == 1:
        return float(ratios[0])
    fine = np.linspace(ratios[0], ratios[-1], 181)
    log = CubicSpline(ratios, heights)(fine)
    return round(_median(fine, np.exp(log - log.max())), 2)


def _log_sum(values: NDArray) -> float:
    top = values.max()
    return float(top + np.log(np.exp(values - top).sum()))


def _median(values: NDArray, weights: NDArray) -> float:
    share = np.cumsum(weights) / weights.sum()
    return float(np.interp(0.5, share - weights / weights.sum() / 2, values))


def scored(scan: Scan, choice: Choice, prior: ScalePrior) -> tuple[dict[str, float], NDArray]:
    """Scales, scores of unseen rays, of the object's pixels at edges and in flat parts, and of discs; each view's nats."""
    case, found = scan.case, learn(scan, choice, prior)
    given, a, b = scan.given(choice.where, choice.soft, found.ratio), math.exp(found.image), math.exp(found.noise)
    if choice.where == "after":
        given = scan.given("posterior", False, 0.0)
    factor = cho_factor(a * given.held + (b - a) * np.eye(len(given.held)), lower=True)
    w = a * cho_solve(factor, case.held_off.ravel())
    if choice.where == "after":
        pixels, T = given.gains["pixels"], scan.root(choice.soft, found.ratio)
        P = (a * scan.posterior[0] - a**2 * pixels @ cho_solve(factor, pixels.T)) * T * T[:, None]

    def told(name: str) -> tuple[NDArray, NDArray]:
        gain = given.gains[name]
        if choice.where == "after":
            return gain @ w, scan.asked.variances(name, P)
        return gain @ w, a * given.variances[name] - a**2 * (gain * cho_solve(factor, gain.T).T).sum(1)

    more, variance = told("rays")
    sd = case.unseen_sd.ravel()
    rays = gaussian_scores((case.unseen_off.ravel() - more) * sd, (variance + b) * sd**2)
    row = {"image_scale": a, "noise_scale": b, "ratio": math.exp(found.ratio)} | {f"ray_{k}": rays[k] for k in _SCORES}
    z = (case.unseen_off.ravel() - more) / np.sqrt(variance + b)
    nats = -0.5 * (z**2 + np.log(variance + b)).reshape(case.unseen_off.shape).mean(1)
    if np.isfinite(case.truth).all():
        more, variance = told("pixels")
        error, inside = (case.truth - case.image).ravel() - more, (case.truth > _OBJECT * case.truth.max()).ravel()
        edge = edges_of(case.truth).ravel()
        parts = {"pixel": inside, "edge": inside & edge, "flat": inside & ~edge, "air": ~inside & ~edge}
        more, spread = told("discs")
        off = scan.asked.discs @ (case.truth - case.image).ravel() - more
        scores = {name: gaussian_scores(error[part], variance[part]) for name, part in parts.items() if part.any()}
        scores["disc"] = gaussian_scores(off, spread)
        row |= {f"{name}_{k}": found[k] for name, found in scores.items() for k in _SCORES}
    return row, nats


def rows(cache: Path, methods: tuple[str, ...], fit: bool) -> Iterator[dict]:
    """A row a scan and choice."""
    for name, case in cases(cache, methods, fit):
        scan = Scan(case)
        _, base = scored(scan, CHOICES[0], ScalePrior())
        for choice in CHOICES:
            row, nats = scored(scan, choice, ScalePrior())
            gain = {
                "ray_gain": float((nats - base).mean()),
                "ray_gain_error": float((nats - base).std(ddof=1) / len(nats) ** 0.5),
            }
            yield {"scan": name, "choice": choice.name} | row | gain
        print(name, flush=True)


def main(cache: Path = KEPT, methods: tuple[str, ...] = ("tv", "dip"), fit: bool = True) -> None:
    """Score every choice on every scan; ``--no-fit`` takes those that are kept."""
    found = list(rows(cache, methods, fit))
    write(found, OUTPUT)
    tell(found)


def tell(found: list[dict]) -> None:
    """A line a choice: what it gains on the global scales, with its standard error over the scans, and what intervals hold."""
    base = {row["scan"]: row for row in found if row["choice"] == CHOICES[0].name}
    for choice in CHOICES:
        chosen = [row for row in found if row["choice"] == choice.name]
        text = [f"{choice.name:32}"]
        for what in ("ray", "pixel", "edge", "flat", "disc"):
            known = [row for row in chosen if f"{what}_rms_z" in row]
            if known:
                gain = [row[f"{what}_log_likelihood"] - base[row["scan"]][f"{what}_log_likelihood"] for row in known]
                error, cover = np.std(gain, ddof=1) / len(gain) ** 0.5, np.mean([row[f"{what}_cover_95"] for row in known])
                text.append(f"{what} {np.mean(gain):+.3f} ± {error:.3f} ({min(gain):+.2f}), {100 * cover:.1f} %")
        print("; ".join(text))


if __name__ == "__main__":
    tyro.cli(main)
