"""An image of one material: its scan without beam hardening, and what its result says of that."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ctuq.pipeline.material import hardened
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.run import Run
from ctuq.systematics.catalogue import ANY, Wish
from ctuq.tomo.scan import Scan
from ctuq.uncertainty.results.contents import Systematic
from ctuq.uncertainty.results.image import Result


def of_one_material(run: Run[ReconstructOptions], scan: Scan) -> Scan:
    """The scan without beam hardening, if its object is known to be of one material; else itself."""
    if run.options.material == ANY:
        return scan
    with run.clock("material"):
        run.tell("One material", 0, 1)
        run.hardened = hardened(scan, run.options.size, run.device)
        run.tell("One material", 1, 1)
    return run.hardened.taken_from(scan)


def errors_left(run: Run[ReconstructOptions], wanted: tuple[Wish, ...]) -> tuple[Wish, ...]:
    """Systematic errors of the scan as it is now."""
    return wanted if run.hardened is None else run.hardened.asked(wanted)


def hardening_told(run: Run[ReconstructOptions], found: Mapping[str, Systematic]) -> Mapping[str, Systematic]:
    """Beam hardening that was taken out, with the whole of it in place of what is left."""
    if run.hardened is None or "hardening" not in found:
        return found
    left, c = found["hardening"], np.array([run.hardened.c])
    whole = replace(left, values=left.values + c, samples=left.samples + c.astype(np.float32), taken=c)
    return {**found, "hardening": whole}


def with_removed(run: Run[ReconstructOptions], result: Result, measured: Scan) -> Result:
    """A result with what was taken out of the rays that were measured, if anything was."""
    if run.hardened is None:
        return result
    taken = measured.projections - result.scan.projections
    return replace(result, removed=taken if result.removed is None else result.removed + taken)
