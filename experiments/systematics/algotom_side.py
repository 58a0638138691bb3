"""Corrections of algotom, in its own environment: ``python algotom_side.py axis|gain|hardening IN OUT``.

IN is an ``.npz`` with ``sino`` (angle, column), line integrals of a half-turn with both of its ends; OUT gets names of
settings, the default first, and of each the corrected sinogram, or the column of the axis. Imports nothing of ctuq.
"""

import sys
import time

import numpy as np


def axis(sino):
    """Column of the axis by sinogram's Fourier transform (Vo et al. 2014), at its defaults and with finer steps."""
    from algotom.prep.calculation import find_center_vo

    ways = {"defaults": {}, "step 0.05": {"step": 0.05}, "step 0.05, ratio 1": {"step": 0.05, "ratio": 1.0, "dsp": False}}
    return {name: np.float64(find_center_vo(sino, ncore=1, **way)) for name, way in ways.items()}


def gain(sino):
    """Sinograms without stripes by each of its methods (Vo et al. 2018 and others)."""
    from algotom.prep import removal

    found = {"all: defaults": removal.remove_all_stripe(sino)}
    every = [("remove_all_stripe", {"snr": s, "la_size": a, "sm_size": b}) for s in (1.5, 3.0) for a, b in ((11, 5), (31, 11))]
    every += [("remove_stripe_based_sorting", {"size": n}) for n in (3, 5, 9, 15, 31)]
    every += [("remove_stripe_based_filtering", {"sigma": s, "size": n}) for s in (1, 3) for n in (3, 5, 9, 15)]
    every += [("remove_stripe_based_fitting", {"order": n, "sigma": s}) for n in (1, 2) for s in (3, 10)]
    every += [("remove_stripe_based_normalization", {"sigma": s}) for s in (1, 3, 7, 15)]
    every += [("remove_stripe_based_regularization", {"alpha": a, "apply_log": False}) for a in (0.0005, 0.005, 0.05, 0.5)]
    every += [("remove_stripe_based_wavelet_fft", {"level": n, "size": s}) for n in (2, 3) for s in (1, 3)]
    for name, way in every:
        words = name.removeprefix("remove_stripe_based_").removeprefix("remove_").removesuffix("_stripe")
        label = f"{words}: " + ", ".join(f"{key} {value}" for key, value in way.items())
        found[label] = getattr(removal, name)(sino.copy(), **way)
    return found


def hardening(sino):
    """Line integrals as a beam of one energy would have them, by its curve of transmission and by polynomials.

    Its curve maps 0 to 0 and 1 to 1; thin rays, which do not harden, are to keep their values.
    """
    from algotom.prep.correction import beam_hardening_correction

    found = {}
    for n in (2.0, 3.0):
        for q in (0.005, 0.05, 0.5, 5.0, 50.0):
            # Below one count of a million the curve's logarithm says nothing.
            changed = np.clip(beam_hardening_correction(np.exp(-np.clip(sino, 0, None)), q, n), 1e-6, None)
            slope = n * q / np.log(1 + q * (n - 1))
            found[f"curve: q {q}, n {n:g}"] = np.where(sino > 0, -np.log(changed) / slope, sino)
    return found | {f"polynomial: p + {a} p^2": sino + a * sino**2 for a in (0.02, 0.05, 0.1, 0.15, 0.2)}


METHODS = {"axis": axis, "gain": gain, "hardening": hardening}

if __name__ == "__main__":
    defect, source, target = sys.argv[1:]
    given = np.load(source)["sino"].astype(np.float64)
    begin = time.process_time()
    made = METHODS[defect](given)
    np.savez(target, names=list(made), values=np.array(list(made.values())), seconds=time.process_time() - begin)
