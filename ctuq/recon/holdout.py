"""What stays out of a fit: views that calibrate the error bars and stop the fit, or single rays that only stop it."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ctuq.errors import InputError
from ctuq.recon.dip import Data
from ctuq.tomo.scan import Views

_FEWEST = 5
WIDE = np.deg2rad(59.9)
"""Directions missing side by side that make an arc limited; views from -68 to 52 degrees lack 60 less a rounding error. HTC
2022 tb lacks 57 degrees: held out inside its arcs, views size the error bars of unseen ones beside them well (rms z 0.99); held
out at the gap, too long (0.65)."""
_RIM, _SPARE = 2.5, 2
"""A gap is so many times as wide as views usually lie apart; so many times the held-out views must lie off the rims of gaps."""
# Of the rays: enough to see the misfit turn (820 rays leave 41), few enough that the image does not miss them.
_RAYS = 0.05


def default_views(n: int) -> int:
    """How many of ``n`` views stay out of the fit: none below 5, one below 8, two below 12, three below 40, then 1 in 13."""
    if n < _FEWEST:
        return 0
    if n < 12:
        return 1 if n < 8 else 2
    return max(3, n // 13)


def too_few(n: int) -> str:
    """Why none of so many views stays out."""
    return f"{n} view{' is' if n == 1 else 's are'} too few to hold any out"


def choose_views(angles: NDArray[np.float64], k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the views to fit, and of ``k`` views to hold out: spread evenly over the angles, or from end to end of an arc.

    Between fitted views a network is sure, and rightly so; beside them it guesses. Where a wide arc of directions is missing,
    the truth lies beside, so the views at both sides of it stay out. Over arcs of 60 and 90 degrees the 95 % intervals of edges
    that no ray runs along then held 81 to 92 % of them, against 67 to 91 % by views from inside the arc; on HTC 2022 ta and tb
    50 and 52 %, against 39 and 33 % (`experiments.limited_angle`).

    Parameters
    ----------
    angles : array, radians
    k : int
    """
    order, limited = _from_gap(angles)
    n = len(angles)
    if not limited:
        within = order[_between(angles)[order]]
        order = within if len(within) >= _SPARE * k else order
    inside, ends = (np.arange(k) + 0.5) * len(order) / max(k, 1), np.linspace(n - 1, 0, k).round()
    held = np.sort(order[(ends if limited else inside).astype(int)])
    return np.setdiff1d(np.arange(n), held), held


def _between(angles: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a view's direction has others about as near as views usually lie, on both sides.

    A view at the rim of a gap is guessed, as few of those are that error bars are asked for: of 31 views of HTC 2022 ta, with
    gaps of 32 degrees, the middle one lay at a rim. Without such views the log-likelihood of a ray of unseen views of
    ta and tb, of 31 and 16 views, rose by 0.006 to 0.073 nats (`experiments.calibration`).
    """
    directions = angles % np.pi
    order = np.argsort(directions, kind="stable")
    after = np.diff(np.append(directions[order], directions[order[:1]] + np.pi))
    wide = after > _RIM * np.median(after[after > 1e-6]) if (after > 1e-6).any() else np.zeros(len(angles), bool)
    out = np.ones(len(angles), bool)
    out[order[wide | np.roll(wide, 1)]] = False
    return out


def _from_gap(angles: NDArray[np.float64]) -> tuple[NDArray[np.int64], bool]:
    """Views in the order of their angles; of a limited arc, of their directions from one side of the gap to the other."""
    arc, directions = missing_arc(angles), angles % np.pi
    if arc is None:
        return np.argsort(angles, kind="stable"), False
    order = np.argsort(directions, kind="stable")
    return np.roll(order, -int(np.searchsorted(directions[order], arc[0], side="right"))), True


def missing_arc(angles: NDArray[np.float64], least: float = WIDE) -> tuple[float, float] | None:
    """Where a wide arc of directions begins that no view has, and how wide it is, radians; None where there is none.

    A direction and its opposite are one. An arc is wide if it is three times as wide as views usually lie apart.

    Parameters
    ----------
    angles : array, radians
    least : float
        How wide it is at least, radians.
    """
    if len(angles) < _FEWEST:
        return None
    directions = np.sort(angles % np.pi)
    gaps = np.diff(np.append(directions, directions[0] + np.pi))
    widest = int(np.argmax(gaps))
    wide = gaps[widest] >= max(least, 3 * float(np.median(gaps)))
    return (float(directions[widest]), float(gaps[widest])) if wide else None


def useful_views(weights: ArrayLike) -> NDArray[np.int64]:
    """Indices of the views with a ray that counts: another can neither stop a fit nor say anything of the error bars.

    Parameters
    ----------
    weights : array, shape (angle, column) or (row, angle, column)
    """
    each = np.asarray(weights).max(axis=-1)
    return np.flatnonzero(each.reshape(-1, each.shape[-1]).max(axis=0) > 0)


def held_views(angles: NDArray[np.float64], useful: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """Indices of the views to hold out.

    Parameters
    ----------
    angles : array, radians
        Of all views.
    useful : array of int
        From `useful_views`.
    wanted : int

    Raises
    ------
    InputError
        If that leaves no useful view to fit.
    """
    n = len(useful)
    if wanted < 0 or wanted >= n:
        raise InputError(f"{wanted} calibration views were asked for, and the scan has {n}; leave at least one for the fit.")
    return useful[choose_views(angles[useful], wanted)[1]]


def views_to_hold(scan: Views, wanted: int | None) -> tuple[NDArray[np.int64], int]:
    """Indices of the views of a scan to hold out, and how many useful views it has.

    Parameters
    ----------
    scan : Scan or VolumeScan
    wanted : int, optional
        By default `default_views` of the useful ones.

    Raises
    ------
    InputError
        If that leaves no useful view to fit.
    """
    useful = np.arange(scan.n_angles) if scan.weights is None else useful_views(scan.weights)
    return held_views(scan.geometry.angles, useful, default_views(len(useful)) if wanted is None else wanted), len(useful)


def _of_views(data: Data, views: NDArray[np.int64]) -> Data:
    """The data of some views."""
    rows = torch.as_tensor(views, device=data.y.device)
    return Data(data.A.subset(views), data.y[..., rows, :], data.weights[..., rows, :])


def split(data: Data, held: NDArray[np.int64], *, rng: torch.Generator) -> tuple[Data, Data]:
    """What is fitted and what stops the fit: the held-out views, or one ray in twenty where there are none.

    Of five views none can be spared, and a fit must be stopped all the same; but rays beside fitted ones say little of the
    error bars, so that nothing is scaled by them.

    Parameters
    ----------
    data : Data
        Sinograms (angle, column), or projections (row, angle, column), of all views.
    held : array of int
        Views that are held out; may be empty.

    Returns
    -------
    fit, stop : Data
        With a batch axis of 1.
    """
    whole = Data(data.A, data.y[None], data.weights[None])
    if len(held):
        return _of_views(whole, np.setdiff1d(np.arange(data.y.shape[-2]), held)), _of_views(whole, held)
    apart = (torch.rand(data.y.shape, generator=rng) < _RAYS).to(data.y)
    return _weighted(whole, 1 - apart), _weighted(whole, apart)


def _weighted(data: Data, share: Tensor) -> Data:
    return Data(data.A, data.y, data.weights * share)
