"""Image and error together: a network's fit to rays with one defect, and one that goes on to rays freed of what they tell."""

import time

from ctuq.linops.jacobian.network import ProductChoice
from ctuq.pipeline.image.freed import Joint
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.plan import route_of
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.views import rays_inside, split_views
from ctuq.recon.dip import DIPOptions, generator
from ctuq.recon.holdout import split
from ctuq.systematics.catalogue import wishes
from ctuq.tomo import ray_transform
from ctuq.uncertainty.estimate import estimate
from experiments.systematics import measure
from experiments.systematics.scans import Subject


def freed_row(subject: Subject, dip: DIPOptions | None = None) -> measure.Row:
    """Errors of the image before and after, and what the intervals of image and defect hold; ``dip`` is of the first fit."""
    begun, scan, truth = time.process_time(), subject.scan, subject.scan.truth
    assert truth is not None
    run = Run(ReconstructOptions(systematics=subject.defect, dip=dip or DIPOptions()), None)
    views = split_views(run.options, scan)
    A = ray_transform(subject.grid, scan.geometry, backend="matrix")
    flux = subject.defect == "flux"
    data = rays_inside(A, scan, views.held, device=run.device, stages=run.stages, flux=flux)
    drawn = run.rng.get_state()
    fit, stop = split(data, views.held, rng=run.rng)
    generate, start = generator(fit, run.options.dip, rng=run.rng)
    network = generate.module(start)[0]
    way = route_of(data.weights, views.fitted, subject.grid.size, network, prior=run.options.prior, memory=None)
    run.checkpoint.way = way, ProductChoice()
    state = run.fit(generate, start, (fit, stop))
    before = generate(state.best)[0].detach().numpy()
    last = Joint(run, data, views, generate, wishes(subject.defect), drawn, moves=True).freed(state)
    found = estimate(last.model, last.data.y, views.held, rng=run.rng, way=way, evidence=last.evidence)
    bars = measure.Bars(last.model, found)
    row: measure.Row = {"scan": subject.name, "blocks": f"{subject.defect} taken out", "defect": subject.defect}
    row |= {"level": subject.level, "fit_rmse": measure.rmse(truth, before), "image_scale": found.scales.image}
    row |= {"corrected_rmse": measure.rmse(truth, last.model.image.numpy()), "noise_scale": found.scales.noise}
    row |= measure.truth_row(truth, bars) | measure.defect_row(subject, bars)
    return row | {"log_evidence": last.evidence.value, "seconds": time.process_time() - begun}
