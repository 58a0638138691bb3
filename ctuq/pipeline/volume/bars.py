"""Error bars of a volume: what they take, and evidence, calibration, posterior and samples at the fitted network."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq.linops.jacobian import cost
from ctuq.linops.jacobian.network import ProductChoice
from ctuq.linops.memory import available_memory
from ctuq.pipeline.bars import UNCALIBRATED, considered, doubts_of_bars, linear_model, of_slices_alone
from ctuq.pipeline.running.plan import Plan, Speeds, flop_seconds, priced, route_of, timed
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.subpixel import volume_noise
from ctuq.pipeline.volume.dip import BLOCK, VolumeFit
from ctuq.recon import tv
from ctuq.recon.tv import ITERATIONS
from ctuq.recon.unet import UNet
from ctuq.scores.gaussian import truth_scores
from ctuq.systematics.build import blocks_of
from ctuq.systematics.catalogue import hidden_wishes
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.rows import bytes_of_rows
from ctuq.tomo.rays.volume import VolumeTransform, volume_transform
from ctuq.tomo.space import VolumeGeometry
from ctuq.tomo.volume_scan import VolumeScan
from ctuq.uncertainty.calibration.unseen import of_all_directions
from ctuq.uncertainty.estimate import ErrorBars, estimate, named
from ctuq.uncertainty.model.linear import ImageModel
from ctuq.uncertainty.model.route import Route
from ctuq.uncertainty.results.volume import VolumeResult, slices_of

_PRIOR, _ROWS = "isotropic", 32


def plan_of_bars(
    scan: VolumeScan, grid: VolumeGrid, held: NDArray[np.int64], options: VolumeOptions, *, device: torch.device
) -> Plan:
    """What error bars take on a grid, by products with a network of a block of it.

    Parameters
    ----------
    scan, grid, options
    held : array of int
        Views that are kept out of the fit.
    device : torch.device
    """
    block = tuple(min(n, BLOCK) for n in grid.shape)
    network = UNet(options.dip.network, torch.Generator().manual_seed(0)).to(device)
    inputs = torch.rand(1, 1, *block, generator=torch.Generator().manual_seed(0)).to(device)
    found, times = cost.times_of_products(network, inputs), grid.size / float(np.prod(block))
    choice = replace(
        found.choice, **{name: max(1, int(getattr(found.choice, name) / times)) for name in ("vjp_rows", "jvp_rows")}
    )
    products = replace(found, choice=choice, vjp_seconds=times * found.vjp_seconds, jvp_seconds=times * found.jvp_seconds)
    weights = torch.ones(scan.projections.shape) if scan.weights is None else torch.from_numpy(scan.weights.copy())
    fitted = np.setdiff1d(np.arange(scan.n_angles), held)
    route = route_of(weights.to(device), fitted, grid.size, network, prior=_PRIOR, memory=available_memory(device))
    matrix = bytes_of_rows(grid, scan.geometry, route.rays, device)
    speeds = Speeds(0.0, products, _rays_seconds(scan, grid, device, held=matrix > 0), flop_seconds(device))
    # The fitted views' rows are copied.
    made = priced(route, speeds, 0.0, fit_bytes=0, matrix=2 * matrix)
    return replace(made, seconds={"tv": 2 * ITERATIONS * speeds.rays, **made.seconds})


def _rays_seconds(scan: VolumeScan, grid: VolumeGrid, device: torch.device, *, held: bool) -> float:
    """Seconds of a projection of all views in float64, one of a batch, measured on two views."""
    some = np.unique([0, scan.n_angles // 2])
    A = volume_transform(grid, scan.geometry.subset(some), backend="matrix" if held else "auto", device=device)
    batch = torch.ones(_ROWS if held else 1, *A.domain.shape, device=device)
    return 2 * timed(lambda: A(batch), runs=3) / len(batch) * scan.n_angles / len(some)


def with_bars(run: Run[VolumeOptions], fit: VolumeFit, base: VolumeResult, way: tuple[Route, ProductChoice]) -> VolumeResult:
    """The result of a fit with its error bars.

    Parameters
    ----------
    run : Run
    fit : VolumeFit
    base : VolumeResult
    way : tuple of Route and ProductChoice
        How they are made.
    """
    roi, data = run.options.roi, fit.data
    with run.clock("tv"):
        run.tell("Total variation", 0, 1)
        drawn = run.stages.once("tv of all views", partial(tv, data.A, data.y, weights=data.weights))
        noise = volume_noise(data, drawn.to(data.y.device))
        run.tell("Total variation", 1, 1)
    with run.clock("jacobian"):
        given = {"prior": _PRIOR, "rank": way[0].rank, "rng": run.rng, "stages": run.stages}
        model = linear_model(
            replace(data, weights=noise.weights), fit.generate, fit.best, choice=way[1], progress=run.products, **given
        )
        hidden = hidden_wishes(run.options.systematics, "volumes", of=base.provenance)
        model = model.with_errors(blocks_of(hidden, data.A, model.image, data.weights))
    with run.clock("evidence"):
        run.tell("Evidence", 0, 1)
        wanted = {"region": None if roi is None else slices_of(roi), "correct": False}
        found = estimate(model, fit.data.y, fit.held, rng=run.rng, way=way[0], stages=run.stages, **wanted)
        run.tell("Evidence", 1, 1, f"log evidence {found.evidence.value:.1f}")
    assert isinstance(data.A, VolumeTransform)
    return _assembled(run, replace(base, warnings=base.warnings + noise.told), model, found, data.A.geometry)


def _assembled(
    run: Run[VolumeOptions], base: VolumeResult, model: ImageModel, found: ErrorBars, geometry: VolumeGeometry
) -> VolumeResult:
    scale, part = found.scales.image**0.5, slices_of(run.options.roi)
    posterior, unseen = of_all_directions(
        found.posterior,
        geometry,
        model.image,
        found.scales.image,
        found.scales.noise * found.evidence.sigma2,
        rng=run.rng,
        stages=run.stages,
        region=None if run.options.roi is None else part,
    )
    with run.clock("samples"):
        run.tell("Samples", 0, 1)
        std = np.full(base.mean.shape, np.nan, np.float32)
        std[part] = (scale * posterior.std()).cpu().numpy()
        deviations = scale * posterior.deviations(run.options.samples, rng=run.rng)
        run.tell("Samples", 1, 1)
    # Not moved by the held-out views: of nuts of 16^3 voxels, whose covariance they scaled by 20, three of them outweighed the
    # 27 fitted ones, and the image was 2 dB worse.
    mean = model.image
    trust = {"leave_one_angle_out": found.leave_one_out}
    if found.calibration is not None:
        trust |= {"held_out": dict(found.calibration.calibrated), "held_out_raw": dict(found.calibration.raw)}
    if base.truth is not None:
        trust["truth"] = truth_scores(mean.cpu().numpy()[part], std[part], base.truth[part])
    notes = (
        unseen
        + doubts_of_bars(model, found.evidence, posterior.error)
        + (() if found.calibration is not None else (UNCALIBRATED,))
    )
    notes += tuple(considered(block.name) for block in model.hidden) + of_slices_alone(run.options.systematics, "volumes")
    return replace(
        base,
        mean=mean.cpu().numpy(),
        std=std,
        samples=(mean[part] + deviations).cpu().numpy() if run.options.samples else None,
        roi=run.options.roi,
        std_error=posterior.error,
        sigma2=found.scales.noise * found.evidence.sigma2,
        prior=named(model.prior, found.evidence.psi),
        log_evidence=found.evidence.value,
        calibration=found.calibration,
        trust=trust,
        warnings=base.warnings + notes,
    )
