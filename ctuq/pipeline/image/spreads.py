"""Simple error bars: images that differ (an ensemble of networks, a bootstrap over views), or one number for all pixels.

Each gives an image of the fitted views and how sure it is of it; held-out views then scale that as those of any program.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.views import Views
from ctuq.recon import CLASSICAL
from ctuq.recon.dip import Data, DIPOptions, dip, generator
from ctuq.recon.holdout import split

MEMBERS, NETWORKS = 32, 8
_ONE = 0.05
"""A constant standard deviation over the image's rms: where calibration starts from."""

Spread = tuple[NDArray[np.float64], NDArray[np.float64]]
"""An image, and what `ctuq.calibrate` takes of it: samples, or a standard deviation."""


def _constant(run: Run[ReconstructOptions], data: Data, views: Views) -> Spread:
    """The method's image, and one variance for all pixels."""
    image = _images(run, data, views, torch.ones(1, len(views.fitted)))[0]
    return image, np.full(image.shape, _ONE * float(np.sqrt(np.mean(image**2))))


def _bootstrap(run: Run[ReconstructOptions], data: Data, views: Views) -> Spread:
    """The method's image, and those of as many views drawn with replacement: one that is drawn twice has twice its weight."""
    n, count = len(views.fitted), NETWORKS if run.options.method == "dip" else MEMBERS
    drawn = torch.randint(n, (count, n), generator=run.rng)
    times = torch.nn.functional.one_hot(drawn, n).sum(1).float()
    images = _images(run, data, views, torch.cat([torch.ones(1, n), times]))
    return images[0], images[1:]


def _ensemble(run: Run[ReconstructOptions], data: Data, views: Views) -> Spread:
    """The mean of networks that start from random weights, and each of them."""
    options = replace(run.options.dip, start="random")
    images = _networks(run, data, views, torch.ones(NETWORKS, len(views.fitted)), options)
    return images.mean(0), images


SPREADS: dict[str, Callable[[Run[ReconstructOptions], Data, Views], Spread]] = {
    "constant": _constant,
    "bootstrap": _bootstrap,
    "ensemble": _ensemble,
}


def _images(run: Run[ReconstructOptions], data: Data, views: Views, times: Tensor) -> NDArray[np.float64]:
    """Images (k, y, x) of the fitted views by the method of the run, views weighted ``times`` (k, view)."""
    if run.options.method == "dip":
        return _networks(run, data, views, times, run.options.dip)
    A, fitted = data.A.subset(views.fitted), torch.as_tensor(views.fitted, device=data.y.device)
    y, weights = data.y[fitted], data.weights[fitted]
    method = CLASSICAL[run.options.method]
    out = []
    for i, each in enumerate(times.to(y)):
        run.tell("Images", i, len(times))
        # Filtered back-projection takes no weights: views are drawn by their number alone.
        used = A if run.options.method != "fbp" else A.subset(np.repeat(np.arange(len(each)), each.long().cpu().numpy()))
        if run.options.method == "fbp":
            image = method(used, y.repeat_interleave(each.long(), 0))
        else:
            image = method(A, y, weights=weights * each[:, None])
        out.append(image)
    run.tell("Images", len(times), len(times))
    return torch.stack(out).cpu().numpy().astype(np.float64)


def _networks(
    run: Run[ReconstructOptions], data: Data, views: Views, times: Tensor, options: DIPOptions
) -> NDArray[np.float64]:
    """Images (k, y, x) of networks fitted side by side, each stopped by the held-out views."""
    fit, stop = split(data, views.held, rng=run.rng)
    count = len(times)

    def repeated(part: Data) -> Data:
        return Data(part.A, part.y.expand(count, *part.y.shape[1:]), part.weights.expand(count, *part.weights.shape[1:]))

    fit, stop = repeated(fit), repeated(stop)
    fit = replace(fit, weights=fit.weights * times.to(fit.weights)[:, :, None])
    generate, start = generator(fit, options, rng=run.rng)

    def fitted() -> Tensor:
        last = deque(dip(generate, start, fit, stop, options), maxlen=1).pop()
        with torch.no_grad():
            return generate(last.best)

    return run.stages.once("networks", partial(fitted), rng=run.rng).cpu().numpy().astype(np.float64)
