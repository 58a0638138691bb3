"""Error bars of a total-variation image: what they take, and a Gaussian edge prior about it, calibrated on held-out views."""

from dataclasses import dataclass
from functools import partial

import torch

from ctuq.linops.memory import available_memory
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.plan import flop_seconds, timed
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.subpixel import RayNoise, ray_noise
from ctuq.pipeline.views import SplitViews
from ctuq.recon import tv
from ctuq.recon.dip import Data
from ctuq.recon.tv import ITERATIONS
from ctuq.tomo.rays.transform import RayTransform
from ctuq.uncertainty.calibration.unseen import bytes_of_room
from ctuq.uncertainty.estimate import ErrorBars
from ctuq.uncertainty.gaussian_bars import OF_PIXELS, Learned, gaussian_bars, learn_edges, learn_matern, learn_smooth
from ctuq.uncertainty.model.gaussian import PixelRays, exact_over_rays, together

_LARGEST = 24576
"""Rays or pixels of a factor: 4.5 GiB, and two minutes of one processor."""
_SHARE, _BASE = 0.4, 800 * 2**20
_SOLVES, _TV = 1000, 400
_STEPS = 2e5
"""Of conjugate gradients, of all right-hand sides: 25 to 40 of each held-out ray, 150 of a draw, 200 of a direction."""
_DEARER = 3.4
"""Than multiplications at the speed of a product of matrices, which leave out the exact standard deviations, the directions
that are kept and many small solves. Stacks of 2 to 8 slices of 16, 24, 32, 48 and 64 pixels took 4.0, 3.1, 3.8, 3.5 and 3.1
times as long, in CPU seconds of plan and run on a machine that others used as well; 256 x 256 pixels and 11,480 rays of an arc,
three times."""
_AROUND = 5.0
"""Seconds of what a slice takes whatever its size: other images, the strength of total variation, pictures."""
_FIELD = 16
_SLOW = 8
"""A product of the sparse matrix with one image of a batch, over a multiplication of a dense one."""


@dataclass(frozen=True)
class EdgePlan:
    """Which way error bars of an image take, and its price.

    Parameters
    ----------
    route : str
        One of `ctuq.uncertainty.model.gaussian.ROUTES`.
    reason : str
        One sentence.
    total : float
        Seconds.
    bytes : int
        Estimated peak memory of the process.
    """

    route: str
    reason: str
    total: float
    bytes: int

    def __str__(self) -> str:
        time = f"{self.total:.0f} s" if self.total < 100 else f"{self.total / 60:.1f} min"
        return f"{self.reason}. About {time} and {self.bytes / 2**30:.1f} GiB."

    def record(self) -> dict[str, str | float | int]:
        """Flat, for a results file."""
        return {"reason": self.reason, "route": self.route, "seconds": self.total, "bytes": self.bytes}


def plan_of_edges(
    A: RayTransform, rays: int, kind: str = "edges", *, way: "EdgeWay | None" = None, iterations: int | None = None
) -> EdgePlan:
    """What error bars of so many rays take.

    Parameters
    ----------
    A : RayTransform
    rays : int
        Of positive weight.
    kind : str
        One of `OF_PIXELS`.
    way : EdgeWay, optional
        Of a slice of a stack; by default that of a single slice, the cheapest within the memory that is left.
    iterations : int, optional
        Of total variation, where they are asked for.
    """
    pixels, width, device = A.grid.size, A.grid.shape[-1], A.device
    around = _AROUND if way is None else 0.0
    way = way or way_of_edges(pixels, width, rays, available_memory(device))
    how = {
        "rays": f"exact, by a factor over {rays} rays",
        "pixels": f"exact, by a factor over {pixels} pixels",
        "cg": "by conjugate gradients, with the standard deviation from 256 draws",
    }[way.route]
    image = torch.ones(1, *A.domain.shape, device=device)
    seconds = (
        around
        + _DEARER * way.flops * flop_seconds(device)
        + _TV * timed(lambda: A.T(A(image))) * ((iterations or ITERATIONS) / ITERATIONS)
    )
    most = way.bytes + bytes_of_room(A.geometry, A.grid.shape, rays)
    return EdgePlan(way.route, f"{pixels} pixels and {rays} rays: {OF_PIXELS[kind]}, {how}", seconds, most)


@dataclass(frozen=True)
class EdgeWay:
    """A route of `ctuq.uncertainty.model.gaussian.ROUTES` with its multiplications and the peak memory of the process."""

    route: str
    flops: float
    bytes: int


def way_of_edges(pixels: int, width: int, rays: int, left: int | None = None) -> EdgeWay:
    """The cheapest way for so many pixels and rays.

    Parameters
    ----------
    pixels, width : int
        Of the image, and along x.
    rays : int
        Of positive weight.
    left : int, optional
        Bytes of memory, of which a share may be used; None chooses by size alone.
    """
    budget = float("inf") if left is None else _SHARE * left
    d, m = float(pixels), float(rays)
    field, entries = _FIELD * d * width, _SLOW * 2 * m * width
    flops = {
        "rays": m * (field + entries) + m**3 / 3 + min(m * m * d, 256 * (m * m + field)) + _SOLVES * (m * m + 2 * field),
        "pixels": d**3 + m * width**2 * 8 + _SOLVES * d * d,
        "cg": _STEPS * (field + 2 * entries),
    }
    batches = 8 * together(pixels) * (8 * d + 3 * m)
    memory = {"rays": 16 * m * m + batches + 8 * m * d * exact_over_rays(m, d), "pixels": 24 * d * d, "cg": batches}
    fits = [name for name, n in (("rays", m), ("pixels", d)) if n <= _LARGEST and memory[name] <= budget]
    route = min([*fits, "cg"], key=lambda name: flops[name])
    return EdgeWay(route, flops[route], int(memory[route]) + _BASE + 40 * rays * width)


def edge_bars(
    run: Run[ReconstructOptions], data: Data, views: SplitViews, plan: EdgePlan
) -> tuple[ErrorBars, PixelRays, Learned, RayNoise]:
    """Error bars of an image by a Gaussian prior, the rays with that image, the prior, and the rays' noise.

    Parameters
    ----------
    run : Run
    data : Data
        All views.
    views : SplitViews
    plan : EdgePlan
    """
    A, stages = data.A, run.stages
    assert isinstance(A, RayTransform)
    fitted = torch.as_tensor(views.fitted, device=data.y.device)
    with run.clock("tv"):
        run.tell("Total variation", 0, 1)
        make = partial(tv, A.subset(views.fitted), data.y[fitted], weights=data.weights[fitted], **run.options.steps)
        image = stages.once("fitted tv", make).to(data.y.device)
        noise = ray_noise(data, image)
        run.tell("Total variation", 1, 1)
    steps = iter(range(1, 5))
    with run.clock("evidence"):
        run.tell("Error bars", 0, 4, "evidence")
        rays = PixelRays.of(A, data.y, noise.weights, image)
        seen = torch.isin(rays.views, fitted).nonzero()[:, 0]
        kind, part = run.options.bars, rays.part(seen)
        learned = (
            learn_edges(part, image) if kind == "edges" else {"gmrf": learn_smooth, "matern": learn_matern}[kind or ""](part)
        )
        found = gaussian_bars(
            rays,
            learned,
            data.y,
            views.held,
            route=plan.route,
            rng=run.rng,
            by_region=kind == "edges",
            stages=stages,
            tell=lambda text: run.tell("Error bars", next(steps), 4, text),
        )
        run.tell("Error bars", 4, 4)
    return *found, learned, noise
