"""What a reconstruction will take, before its fit: the route, memory, products with the network, and minutes.

The minutes come from a few iterations and products, measured for two or three seconds, of a large image at a smaller size;
machines differ by a factor of four, and one kind of product against another by two.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ctuq.linops.elapsed import seconds_of
from ctuq.linops.jacobian import cost
from ctuq.linops.jacobian.cost import ProductCost
from ctuq.linops.jacobian.network import ProductChoice, weight_names
from ctuq.linops.memory import require_memory
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.recon.dip import Data, Generator, trial_step
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.rays.volume import VolumeTransform
from ctuq.uncertainty.model.factor import draws_of
from ctuq.uncertainty.model.route import DRAWS, EVIDENCE_RAYS, Route, route

MOST_FITS = 3
"""Further ones of a network, to rays without what the scanner does wrong."""
FIT_BYTES = 4096
"""A pixel, of the activations of an image's fit and their gradients."""
_LESS = "choose a smaller --size or fewer --samples"
_ROWS = 32
# Beside its gradient a step has the total variation, Adam and the running average; float64 doubles the bytes of a ray.
_STEP, _WIDE = 1.15, 2.0
_EVALUATIONS = 28
_EM_PRODUCTS = 17 * 1600
# Of block CG to 1e-6, with the algebra of its blocks.
_CG_PRODUCTS = {2: 65, 3: 40}
"""Products with the rays that a right-hand side takes as long as: of images (the tooth at 256 x 256: 13 steps), of volumes."""
# Seconds of a factorisation over one in float64, and rounds of refinement of one in float32.
_FACTOR = {"float64": 1.0, "float32": 0.5, "cg": 0.0}
_ROUNDS = 3
_PRODUCTS = 64 + 2 * (192 - 64)
_MATRIX = 1536
# The eigenvectors of a pixel's 25 neighbours take 80 microseconds.
_NEIGHBOURHOOD = 1e6
_BASE = 700 * 2**20
"""Of a process: with 800 MiB a tenth to a half too much was planned at 24 to 64 pixels."""
_ENTRY_BYTES = 64
"""Of an entry of the rays' matrix, of which a ray has 1.6 times the image's side: 24 in float32 with its transpose, 40 whitened
in both precisions. HTC ta took 8.9 GiB at 256 x 256 from all views, 7.0 at 512 x 512; by 25 bytes 5.2 and 4.9 were planned."""
_BESIDE_BYTES = 40
"""More of an entry where the rays that are fitted are solved by themselves too: theirs whitened in both precisions. All views
of the tooth at 512 x 512 took 16.3 GiB where 10.6 were planned, 1.53 times as much; so counted, 1.15 times."""


@dataclass(frozen=True)
class Plan:
    """A route with its price.

    Parameters
    ----------
    route : Route
    products : ProductChoice
        How products with the network are made.
    seconds : mapping of str to float
        Of each stage, by its name in a result's ``timings``.
    bytes : int
        Estimated peak memory of the process.
    again : Mapping of str to float
        Seconds of each stage of one further fit, of which there are `MOST_FITS` at most where systematic errors are taken out
        of the rays: nobody knows before the first fit whether they are.
    again_for : tuple of str
        Names of the errors that may be taken out.
    """

    route: Route
    products: ProductChoice
    seconds: Mapping[str, float]
    bytes: int
    again: Mapping[str, float] = field(default_factory=dict)
    again_for: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    def __str__(self) -> str:
        stages = ", ".join(f"{name} {_time(value)}" for name, value in self.seconds.items() if value >= 0.5)
        told = f": {stages}" if stages else ""
        return f"{self.route.reason}. About {_time(self.total)} and {self.bytes / 2**30:.1f} GiB{told}.{self._refit}"

    def record(self) -> dict[str, str | float | int]:
        """Flat, for a results file."""
        forward, backward = self.route.products
        route = {"reason": self.route.reason, "rank": self.route.rank, "jvps": forward, "vjps": backward}
        again = {"seconds again": sum(self.again.values()), "again for": ", ".join(self.again_for)} if self.again else {}
        whole = {"bytes": self.bytes, "seconds": self.total} | {f"seconds {k}": v for k, v in self.seconds.items()}
        return route | whole | again

    @property
    def _refit(self) -> str:
        names = self.again_for
        if not names:
            return ""
        listed = " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
        more = _time(sum(self.again.values()))
        return f" And about {more} more for each further fit, of one to {MOST_FITS}, if {listed} is found wrong."


def route_of(
    weights: Tensor, fitted: NDArray[np.int64], pixels: int, network: nn.Module, *, prior: str, memory: int | None
) -> Route:
    """The route of a scan's image or volume.

    Parameters
    ----------
    weights : Tensor, shape (angle, column) or (row, angle, column)
        Of the rays.
    fitted : array of int
        Views that are fitted.
    pixels : int
    network : Module
    prior : str
        Of its weights.
    memory : int, optional
        Bytes that may be used; None chooses by size alone.
    """
    used = weights > 0
    seen = int(used[..., torch.as_tensor(fitted, device=used.device), :].sum())
    names = set(weight_names(network))
    blocks = [value for name, value in network.named_parameters() if name in names]
    count = {"isotropic": 1, "g": 1, "layerwise": len(blocks), "filter": 6 * len(blocks)}[prior]
    size = sum(value.numel() for value in blocks)
    rays, dims = int(used.sum()), weights.ndim
    view = max(rays // weights.shape[-2], 1)
    return route(pixels, rays, seen, size, components=count, memory=memory, dims=dims, view=view)


@dataclass(frozen=True)
class Speeds:
    """Seconds of one step of each kind of work at the size of a scan, on this machine.

    Parameters
    ----------
    iteration : float
        Of the fit.
    products : ProductCost
        With the network's Jacobian.
    rays : float
        The sparse matrix times one image, in float64.
    flop : float
        One multiplication and addition of a factorisation in float64.
    """

    iteration: float
    products: ProductCost
    rays: float
    flop: float


def speeds_of_fit(fit: Data, generate: Generator, start: dict[str, Tensor]) -> Speeds:
    """A few iterations and products with the network as it starts: their time does not depend on the weights."""
    iteration = timed(lambda: trial_step(generate, start, fit))
    products = cost.times_of_products(*generate.module(start))
    return Speeds(_STEP * iteration, products, seconds_of_rays(fit.A), flop_seconds(fit.y.device))


def seconds_of_rays(A: RayTransform | VolumeTransform) -> float:
    """Seconds of a ray transform of one image, in float64."""
    batch = torch.ones(_ROWS, *A.domain.shape, device=A.device)
    return _WIDE * timed(lambda: A(batch)) / _ROWS


def flop_seconds(device: torch.device) -> float:
    """Seconds of one multiplication and addition of a factorisation in float64."""
    matrix = torch.eye(_MATRIX, dtype=torch.float64, device=device).mul_(2)
    # Matrices of several thousand run at twice the speed of this one (walnut at 64 to 128 pixels, figures/jobs.csv).
    return 0.5 * timed(lambda: torch.linalg.cholesky(matrix)) / (_MATRIX**3 / 3)


def priced(route: Route, speeds: Speeds, iterations: float, *, fit_bytes: int, matrix: float | None = None) -> Plan:
    """The plan of a route at these speeds.

    Parameters
    ----------
    route : Route
    speeds : Speeds
    iterations : float
        Of the fit, at full size.
    fit_bytes : int
        What the fit's activations take.
    matrix : float, optional
        What the rays' matrix takes; by default as that of an image.
    """
    d, m = route.pixels, route.rays
    r = route.rank
    forward, backward = route.products
    products = speeds.products.seconds(jvps=forward, vjps=backward)
    # An exact Jacobian's products of rows; of directions, three orthonormal bases of half of them each.
    flops = (1.0 if r == d else 2.0) * r * r * route.weights
    seconds = {
        "dip": iterations * speeds.iteration,
        "jacobian": products + (0.5 * flops + _beside(route)) * speeds.flop + r * speeds.rays,
        "evidence": _evidence(route, speeds, r) + _conditioned(r, route, speeds) + _held(route, speeds, r),
        "samples": _std(route, speeds, r),
    }
    entry = _ENTRY_BYTES + (0 if route.leaves_out(m - route.fitted) else _BESIDE_BYTES)
    rays = entry * 1.6 * m * d**0.5 if matrix is None else matrix
    return Plan(route, speeds.products.choice, seconds, max(route.bytes, fit_bytes) + _BASE + int(rays))


def with_refit(plan: Plan, speeds: Speeds, iterations: float, errors: tuple[str, ...]) -> Plan:
    """The plan of a run that looks for systematic errors, and fits again to rays without those that it finds.

    Parameters
    ----------
    plan : Plan
        Without them.
    speeds : Speeds
    iterations : float
        Of a fit that goes on.
    errors : tuple of str
        Names of those that may be found; with none the plan stays as it is.
    """
    if not errors:
        return plan
    route, first = plan.route, plan.seconds
    # After each fit the rays are solved for the errors.
    found = _conditioned(route.rank, route, speeds)
    again = {"dip": iterations * speeds.iteration, "jacobian": first["jacobian"]}
    again["evidence"] = _evidence(route, speeds, route.rank) + found
    return replace(plan, seconds={**first, "evidence": first["evidence"] + found}, again=again, again_for=errors)


def _beside(route: Route) -> float:
    """Multiplications for the covariance of what a factor leaves out: those of a pixel's neighbourhood, once for each pixel."""
    alone = route.rank == route.pixels or not draws_of(route.pixels, route.rays, route.dims)[1]
    return 0.0 if alone else _NEIGHBOURHOOD * route.pixels


def _evidence(route: Route, speeds: Speeds, r: int) -> float:
    f = route.evidence_of
    if route.exact_evidence:
        turned = 2.0 * route.fitted * f * f * speeds.flop if f < min(route.fitted, EVIDENCE_RAYS) else 0.0
        return turned + 4 * f * speeds.rays + _EVALUATIONS * 1.6 * float(f) ** 3 * speeds.flop + 2.0 * f * f * r * speeds.flop
    return _EM_PRODUCTS * (4 * speeds.rays + 4.0 * f * r * speeds.flop)


def _conditioned(r: int, route: Route, speeds: Speeds) -> float:
    n = min(route.rays, route.pixels)
    made = _FACTOR[route.noise_by] * n**3 / 3 * speeds.flop
    return made + r * _solve(route, speeds) + 2.0 * route.rays * r * r * speeds.flop


def _solve(route: Route, speeds: Speeds) -> float:
    """Seconds for one right-hand side of noise and floors."""
    n = min(route.rays, route.pixels)
    if route.noise_by == "cg":
        return _CG_PRODUCTS[route.dims] * speeds.rays
    if route.noise_by == "float32":
        return _ROUNDS * (2 * speeds.rays + n * n * speeds.flop)
    return 2 * speeds.rays + 2.0 * n * n * speeds.flop


def _held(route: Route, speeds: Speeds, r: int) -> float:
    """Leave-one-angle-out, and the held-out rays' variances."""
    return route.solves * (_solve(route, speeds) + 4.0 * route.rays * r * speeds.flop)


def _std(route: Route, speeds: Speeds, r: int) -> float:
    m, d = route.rays, route.pixels
    pixels = (2.0 * d * r * r + 2.0 * m * r * r) * speeds.flop + 2 * r * speeds.rays
    # Samples, and of an image what directions take: waves, and two products for each of the others. A volume's draws end early.
    few = route.dims == 3
    draws = (32 if few else 64 + _PRODUCTS) + (0 if route.exact_std else DRAWS // 4 if few else DRAWS)
    one = _solve(route, speeds) + 4 * speeds.rays + 8.0 * m * r * speeds.flop
    # Over rays or pixels, whichever are fewer: the rays of a volume are many, and its voxels few.
    n = min(m, d)
    exact = (1.0 * n * n * d + 2.0 * n * r * d) * speeds.flop if route.exact_std else 0.0
    return pixels + draws * one + exact


def timed(work: Callable[[], object], runs: int = 2) -> float:
    """Seconds of the fastest of some runs: the first one also prepares."""
    return min(seconds_of(work) for _ in range(runs))


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def require_room_for_fit(options: ReconstructOptions, grid: VolumeGrid, device: torch.device) -> None:
    """Refuse what cannot fit, before anything is begun: the fit's activations, and the samples.

    Parameters
    ----------
    options : ReconstructOptions
    grid : VolumeGrid
        Of the image.
    device : torch.device
    """
    samples = 16 * options.samples if options.bars else 0
    needed = grid.size * ((FIT_BYTES if options.method == "dip" else 64) + samples)
    require_memory(needed, f"An image of {options.size} x {options.size} pixels", _LESS, device)
