"""Classical reconstructions: what was asked for, or what the deep image prior is shown beside."""

from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.run import Run
from ctuq.pipeline.views import tensors
from ctuq.recon import CLASSICAL
from ctuq.recon.dip import Data
from ctuq.stages import Under
from ctuq.tomo.scan import Scan


def classical(
    run: Run[ReconstructOptions], data: Data, scan: Scan, *, less: Tensor | None = None, mark: str = "freed"
) -> dict[str, NDArray[np.float32]]:
    """The method that was asked for; beside a DIP, FBP and TV to compare with.

    FBP takes the rays as they were measured: it makes each pixel of them by itself, and needs no account of what lies outside.

    Parameters
    ----------
    run, scan
    data : Data
        What lies inside.
    less : Tensor, optional
        Systematic errors, of which the rays of ``data`` are free: they are taken from what was measured.
    mark : str
        Under which such images are kept.
    """
    stages = run.stages if less is None else Under(run.stages, mark)
    names = ("fbp", "tv") if run.options.bars or run.options.method == "dip" else (run.options.method,)
    images = {}
    with run.clock("classical"):
        for i, name in enumerate(names):
            run.tell("Classical reconstructions", i, len(names), name)
            y = data.y if name != "fbp" else tensors(scan, run.device)[0] - (0.0 if less is None else less)
            image = stages.once(name, partial(CLASSICAL[name], data.A, y, weights=data.weights))
            images[name] = image.cpu().numpy().astype(np.float32)
        run.tell("Classical reconstructions", len(names), len(names))
    return images
