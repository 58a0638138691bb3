"""Image and error together: a network's fit to rays with one defect, and one that goes on to rays freed of what they tell."""

import time
from dataclasses import dataclass

import torch
from numpy.typing import NDArray

from ctuq.linops.jacobian.network import ProductChoice
from ctuq.pipeline.image.classical import classical, smooth_image, smoothness
from ctuq.pipeline.image.freed import Freed, Joint, of_any_flux
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.plan import route_of
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.subpixel import ray_noise
from ctuq.pipeline.views import SplitViews, rays_inside, split_views
from ctuq.recon.dip import DIPOptions, generator
from ctuq.recon.holdout import split
from ctuq.systematics.catalogue import wishes
from ctuq.tomo import ray_transform
from ctuq.uncertainty.estimate import estimate
from ctuq.uncertainty.model.linear import ImageModel
from experiments.systematics import measure
from experiments.systematics.scans import Subject


@dataclass(frozen=True, eq=False)
class Fitted:
    """A scan's image before and after errors are taken out; ``views`` and ``run`` are what its error bars are made by."""

    before: NDArray
    last: Freed
    views: SplitViews
    run: Run[ReconstructOptions]

    @classmethod
    def to(cls, subject: Subject, asked: str, dip: DIPOptions | None = None) -> "Fitted":
        """The rays of a scan, with these systematic errors in the model; ``dip`` is of the first fit."""
        scan = subject.scan
        run = Run(ReconstructOptions(systematics=asked, dip=dip or DIPOptions()), None)
        views = split_views(run.options, scan)
        A = ray_transform(subject.grid, scan.geometry, backend="matrix")
        data = rays_inside(A, scan, views.held, device=run.device, stages=run.stages, flux=asked == "flux")
        drawn = run.rng.get_state()
        fit, stop = split(data, views.held, rng=run.rng)
        if asked == "flux":
            fit, stop = of_any_flux(fit), of_any_flux(stop)
        generate, start = generator(fit, run.options.dip, rng=run.rng)
        smooth = smoothness(run, data, scan, views.held)
        smoothed = classical(run, data, scan, strength=smooth.strength)["tv"]
        noise = ray_noise(data, smooth_image(run, data, smoothed, smooth.strength))
        network = generate.module(start)[0]
        way = route_of(data.weights, views.fitted, subject.grid.size, network, prior=run.options.prior, memory=None)
        run.checkpoint.way = way, ProductChoice()
        state = run.fit(generate, start, (fit, stop))
        with torch.no_grad():
            before = generate(state.best)[0].numpy()
        return cls(before, Joint(run, data, views, generate, wishes(asked), drawn, noise, moves=True).freed(state), views, run)

    def bars(self, model: ImageModel | None = None) -> measure.Bars:
        """The error bars; ``model`` may have other hidden errors."""
        model, last = model or self.last.model, self.last
        assert self.run.checkpoint.way is not None
        given = {"rng": self.run.rng, "way": self.run.checkpoint.way[0], "evidence": last.evidence}
        return measure.Bars(model, estimate(model, last.data.y, self.views.held, **given), self.views.held)


def freed_row(subject: Subject, dip: DIPOptions | None = None) -> measure.Row:
    """Errors of the image before and after, and what the intervals of image and defect hold; ``dip`` is of the first fit."""
    begun, truth = time.process_time(), subject.scan.truth
    assert truth is not None
    fitted = Fitted.to(subject, subject.defect, dip)
    bars, last = fitted.bars(), fitted.last
    row: measure.Row = {"scan": subject.name, "blocks": f"{subject.defect} taken out", "defect": subject.defect}
    row |= {"level": subject.level, "fit_rmse": measure.rmse(truth, fitted.before), "image_scale": bars.found.scales.image}
    row |= {"corrected_rmse": measure.rmse(truth, last.model.image.numpy()), "noise_scale": bars.found.scales.noise}
    row |= measure.truth_row(truth, bars) | measure.defect_row(subject, bars)
    return row | {"log_evidence": last.evidence.value, "seconds": time.process_time() - begun}
