"""Views that disagree with the image that all of them make: each counts as its own residual says.

A sample that moves for one view, an angle that is wrong, a flash of the tube: whatever it is, least squares with one noise for
all views bends the image to it, and error bars hold none of that. Even pixels can do it: of rectangles whose sides lie along
the pixels' columns, the view along these columns misses the truth itself by eight times the noise, as pixels that an edge
crosses have no right value. The network made stripes of that, 18.7 dB, and its 95 % intervals held 30 % of the object. With
that view weighed by its residual it is 31.1 dB, and they hold 96 %.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctuq.pipeline.image.freed import without_own
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.run import Run
from ctuq.recon import tv
from ctuq.recon.dip import Data
from ctuq.tomo.rays.transform import RayTransform
from ctuq.tomo.rays.volume import VolumeTransform

# Of 24 settings of walnut, ta, tb and tooth the largest is 3.3 (tb's first and last views), of 144 of phantoms 4.4, but for one
# rectangle along the pixels: 7.9 to 16.7. Where total variation fits badly it does so in neighbouring views: of those that are
# twice as far as both neighbours, sound ones reach 2.7 (3.9 along the pixels), and wrong ones 3.6 to 20.
_FAR, _ALONE, _TWICE = 4.0, 3.0, 2.0
_FEW, _FEWEST = 0.2, 8
# The image of all views bends to those that disagree, and does less of it once they count less.
_ROUNDS = 4
_NOBODY = np.zeros(0, np.int64)
_TOLD = (
    "{} of {} views, first number {} (at {:.4g} degrees), {} up to {:.2g} times as far from the image as the others (moved, of "
    "another angle, or along straight edges): {} for as much less in image and error bars, and judge{} nothing."
)


@dataclass(frozen=True, eq=False)
class Agreement:
    """How far each view's rays lie from an image of all views.

    Parameters
    ----------
    times : array, shape (angle,)
        Root mean square of its residuals over the median view's; 1 for a view in which no ray counts.
    angles : array, shape (angle,), radians
        Of the views, in any order.
    """

    times: NDArray[np.float64]
    angles: NDArray[np.float64]

    @property
    def far(self) -> NDArray[np.bool_]:
        """Views that disagree, if they are few."""
        order = np.argsort(self.angles, kind="stable")
        turned = self.times[order]
        beside = np.empty_like(turned)
        beside[order] = np.maximum(np.roll(turned, 1), np.roll(turned, -1))
        far = (self.times > _FAR) | ((self.times > _ALONE) & (self.times > _TWICE * beside))
        return far if len(far) >= _FEWEST and far.sum() <= _FEW * len(far) else np.zeros_like(far)

    def factors(self, held: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of the weights of each view's rays, (angle, 1): those of views that disagree have the variance that they show.

        A ``held`` view that disagrees judges nothing, unless no other does: by its residual, which is the same in neighbouring
        columns, scales came out too large (of three scans 0.03 to 0.23 nats an unseen ray).
        """
        factors, judges = np.where(self.far, self.times**-2.0, 1.0), np.isin(np.arange(len(self.far)), held)
        if (judges & ~self.far).any():
            factors[judges & self.far] = 0.0
        return factors[:, None]

    def weighed(self, data: Data, held: NDArray[np.int64]) -> Data:
        """The rays of one slice or more, by these weights."""
        if not self.far.any():
            return data
        return replace(
            data, weights=(data.weights * torch.as_tensor(self.factors(held), device=data.y.device)).to(data.weights)
        )

    @property
    def told(self) -> tuple[str, ...]:
        """What the user should know of it."""
        if not (n := int(self.far.sum())):
            return ()
        first, most = int(np.argmax(self.far)), float(self.times[self.far].max())
        lie, count, s = ("lies", "it counts", "s") if n == 1 else ("lie", "they count", "")
        return (_TOLD.format(n, len(self.far), first, np.rad2deg(self.angles[first]), lie, most, count, s),)


def agreement_of(data: Data, own: Iterable[str] = (), *, judged: bool = False) -> Agreement:
    """How far views lie from total-variation images of all, each weighed by that itself.

    Parameters
    ----------
    data : Data
        As measured, of all views: of one slice, of several of the same views (slice, angle, column), or of a volume.
    own : iterable of str
        Errors of single views that the error bars hold: what these can make of a residual is none.
    judged : bool
        Take views for sound (times 1) unless views beside them, left out, are predicted better with them weighed: for every
        method but the network. A view along a straight edge lies far from any image of pixels, and says most of where the edge
        is: weighed, it cost total variation up to 20 dB (a plate in golden-ratio order). The network gained 0.8 to 8 dB by it
        on five of eight such objects, and lost 0.9 to 2.2 dB on three, two of them of plates half a pixel thick or one.
    """
    assert isinstance(data.A, RayTransform | VolumeTransform)
    names, angles = tuple(own), data.A.geometry.angles
    found = Agreement(np.ones(len(angles)), angles)
    for _ in range(_ROUNDS):
        before, found = found, Agreement(_times(data, found.weighed(data, _NOBODY).weights, names), angles)
        if (found.far == before.far).all():
            break
    return _judged(data, found, names) if judged else found


def kept_agreement(run: Run[ReconstructOptions], data: Data, own: Iterable[str] = ()) -> Agreement:
    """`agreement_of`, made once in a run that is gone on with."""
    assert isinstance(data.A, RayTransform)
    judged = run.options.method != "dip"
    with run.clock("agreement"):
        times = run.stages.once("agreement", lambda: agreement_of(data, own, judged=judged).times)
    return Agreement(times, data.A.geometry.angles)


def _judged(data: Data, found: Agreement, own: Iterable[str]) -> Agreement:
    """Without the views that the views beside them speak for."""
    while found.far.any():
        worse = _worse(data, found, own)
        spoken = found.far & (worse >= 1)
        if not spoken.any():
            break
        # A wrong view among sound ones looks sound as long as these are missed: the worst go first.
        spoken &= worse >= np.sqrt(worse[spoken].max())
        found = replace(found, times=np.where(found.far & ~spoken, found.times, 1.0))
    return found


def _worse(data: Data, found: Agreement, own: Iterable[str]) -> NDArray[np.float64]:
    """How many times worse the sound views to both sides of each that disagrees are predicted by an image with it weighed."""
    order, far = np.argsort(found.angles, kind="stable"), found.far
    sound = np.flatnonzero(~far[order])
    after = np.searchsorted(sound, np.argsort(order, kind="stable")) % len(sound)
    beside = order[sound[np.stack([after - 1, after])]]
    fitted = torch.ones(len(far), 1, dtype=data.weights.dtype, device=data.y.device)
    fitted[torch.as_tensor(np.unique(beside[:, far]), device=data.y.device)] = 0
    alike, weighed = (_sums(data, weights * fitted, own) for weights in (data.weights, found.weighed(data, _NOBODY).weights))
    before, now = (sums[beside].sum(0) for sums in (alike, weighed))
    return np.sqrt(np.divide(now, before, out=np.ones_like(now), where=before > 0))


def _sums(data: Data, weights: Tensor, own: Iterable[str]) -> NDArray[np.float64]:
    """Squares of each view's residuals by the weights that the rays were given, from an image by others."""
    image = tv(data.A, data.y, weights=weights)
    residual = without_own(data, image, own).residual(image)
    return (data.weights * residual.square()).sum((*range(data.y.ndim - 2), -1)).double().cpu().numpy()


def _times(data: Data, weights: Tensor, own: Iterable[str]) -> NDArray[np.float64]:
    counts = (data.weights > 0).sum((*range(data.y.ndim - 2), -1)).cpu().numpy()
    sums = _sums(data, weights, own)
    spread, seen = np.sqrt(sums / np.maximum(counts, 1)), counts > 0
    middle = float(np.median(spread[seen])) if seen.any() else 0.0
    return np.where(seen, spread / middle, 1.0) if middle > 0 else np.ones(len(spread))
