"""How far the views of a stack lie from its slices."""

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.pipeline.image.agreement import agreement_of
from ctuq.pipeline.stack.scan import Stack
from ctuq.pipeline.stack.work import Setting, Work
from ctuq.recon.dip import Data


def stack_agreement(stack: Stack, setting: Setting) -> NDArray[np.float64]:
    """`Agreement.times` of all views, with the slices that teach the others together.

    A slice that fails is told by its own work.
    """
    parts = []
    for number in stack.teachers:
        try:
            parts.append(Work(setting, stack.slice(number)).data(of_all=True))
        except InputError:
            continue
    if not parts:
        return np.ones(len(setting.geometry.angles))
    y, weights = (torch.stack([vars(part)[name] for part in parts]) for name in ("y", "weights"))
    return agreement_of(Data(parts[0].A, y, weights), judged=setting.options.method != "dip").times
