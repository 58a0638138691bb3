"""What the noise of a scan's counts is by its own flats and darks, if these tell it and its projections do not contradict."""

import warnings

import numpy as np

from ctuq.files.formats.raw import Raw
from ctuq.files.plausible import full_scale
from ctuq.tomo.noise_agreement import agreement, agrees
from ctuq.tomo.noise_law import NoiseLaw, learned_law
from ctuq.tomo.preprocess import open_beams

_DIM = 1.0
_AS_BEFORE = "rays are weighted by their counts, as if each count were a quantum and nothing else made noise"
_ALIKE = (
    " The noise of neighbouring columns is correlated by {:.2g} ± {:.1g}, as a scintillator's blur makes it; the model takes "
    "rays as independent, and what that does to the error bars only their calibration by held-out views can make good."
)


def law_of(raw: Raw) -> tuple[NoiseLaw | None, str]:
    """The law of a scan's counts, or None where it is not known, and a sentence about it.

    Parameters
    ----------
    raw : Raw
        Where its ``noise`` is known, or it has no two flats, nothing is learned, and nothing said.
    """
    if raw.noise is None or isinstance(raw.noise, NoiseLaw):
        return raw.noise, ""
    if raw.kind_of_values != "counts" or raw.flats is None or raw.weights is not None or len(raw.flats) < 2:
        return None, ""
    frames = [np.atleast_2d(part) for part in (raw.flats, raw.darks) if part is not None]
    if any(part.shape[1] != raw.values.shape[1] for part in frames):
        return None, ""  # they are refused where the flat field is taken out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns that are NaN in every frame
        law, why = _checked(raw)
    if law is None:
        return None, f"The flats do not say what noise counts have ({why}): {_AS_BEFORE}."
    return law, _told(law)


def _checked(raw: Raw) -> tuple[NoiseLaw | None, str]:
    flats = np.atleast_2d(np.asarray(raw.flats, np.float64))
    flats = flats if raw.bad_columns is None else np.where(raw.bad_columns, np.nan, flats)
    darks = None if raw.darks is None else np.atleast_2d(np.asarray(raw.darks, np.float64))
    dark = 0.0 if darks is None else np.nanmean(darks, axis=0)
    signal = np.asarray(raw.values, np.float64) - dark
    dim = max(float(np.nanpercentile(signal, _DIM)), 0.0)
    law, why = learned_law(flats, darks, raw.flats_after, dim=dim, full=full_scale(raw))
    if law is None:
        return None, why
    beams = np.broadcast_to(open_beams(flats, raw.flats_after, len(signal)) - dark, signal.shape)
    found = agreement(signal, beams, law)
    if found is None:
        return None, "too few rays to compare the projections' noise with theirs"
    times, in_air = found
    if agrees(times):
        return law, ""
    if in_air:
        return (
            None,
            f"where the beam is brightest the projections' variance is {times:.2g} times theirs: either may be means of frames",
        )
    return None, f"no air is seen to compare with, and the projections' variance, edges included, is {times:.2g} times theirs"


def _told(law: NoiseLaw) -> str:
    darks = f" and {law.darks} darks" if law.darks else ""
    electronic = f"{law.electronic:.3g}" + (f" ± {law.electronic_error:.1g}" if law.electronic else "")
    alike = _ALIKE.format(law.correlation, law.correlation_error) if law.is_correlated else ""
    return (
        f"Rays are weighted by the noise that {law.flats} flats{darks} show: the variance of a count is {law.gain:.3g} ± "
        f"{law.gain_error:.1g} times the signal, and the electronic noise {electronic}, which is as much at a signal of "
        f"{law.ratio:.3g}.{alike}"
    )
