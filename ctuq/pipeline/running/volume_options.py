"""What a user can choose of a volume's reconstruction."""

from dataclasses import dataclass
from dataclasses import field as of_default

from ctuq.errors import InputError
from ctuq.pipeline.running.checks import (
    MOST_ITERATIONS,
    MOST_SAMPLES,
    MOST_SEED,
    MOST_THREADS,
    check_choice,
    check_errors,
    check_field,
    check_flags,
    check_iterations,
    check_whole,
)
from ctuq.recon import VOLUMES
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.systematics.catalogue import DEFAULT, hidden_wishes
from ctuq.tomo.geometry import MOST_PIXELS
from ctuq.uncertainty.results.volume import Box

VOLUME_METHODS = ("dip", *VOLUMES)
ITERATIONS = {"fdk": 1, "sirt": 200, "cgls": 50, "tv": 200}
_WHOLE = {
    "size": (2, MOST_PIXELS),
    "iterations": (1, MOST_ITERATIONS),
    "threads": (1, MOST_THREADS),
    "seed": (0, MOST_SEED),
    "calibration_views": None,  # the scan says how many it can spare
    "samples": (0, MOST_SAMPLES),
}


@dataclass(frozen=True)
class VolumeOptions:
    """Options of a volume's reconstruction.

    Parameters
    ----------
    method : {"fdk", "sirt", "cgls", "tv", "dip"}
    size : int
        Voxels along x and y; as many along z as the detector's rows see.
    field : float, "all" or "common", optional
        Width in mm, as in `ctuq.pipeline.ReconstructOptions`.
    iterations : int, optional
        Of SIRT and TV (200 by default) and, at most, of CGLS (50); those of the deep image prior are in ``dip``.
    device : str
    threads : int, optional
        Processor threads; by default as torch is set.
    seed : int
        Of the network's weights, and of rays that stop its fit where no view can.
    calibrate : bool
        Hold views out of the deep image prior's fit, which stop it.
    calibration_views : int, optional
        How many; by default `ctuq.recon.holdout.default_views`.
    uncertainty : bool
        Whether a deep image prior has error bars.
    samples : int
        Posterior samples to keep.
    systematics : str
        As in `ctuq.pipeline.ReconstructOptions`; those that no ray tells.
    roi : tuple of tuple of int, optional
        Voxels with error bars and samples along z, y and x, each from the first to one behind the last; by default all.
    dip : DIPOptions
        Its network has three axes.
    """

    method: str = "fdk"
    size: int = 128
    field: float | str | None = None
    iterations: int | None = None
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    calibrate: bool = True
    calibration_views: int | None = None
    uncertainty: bool = True
    samples: int = 32
    systematics: str = DEFAULT
    roi: Box | None = None
    dip: DIPOptions = of_default(default_factory=lambda: DIPOptions(network=UNetOptions(dims=3)))

    def __post_init__(self):
        check_choice("method for volumes", self.method, VOLUME_METHODS)
        check_whole(self, _WHOLE)
        check_iterations(self.method, self.iterations)
        check_flags(self, "calibrate", "uncertainty")
        check_field(self.field)
        check_errors(hidden_wishes(self.systematics, "volumes"), all_of=self.method == "dip" and self.uncertainty, hidden=False)
        if self.dip.module is not None:
            raise InputError("A network of one's own is for slices; leave it out of volumes.")
        if self.dip.network.dims != 3:
            raise InputError("The network of a volume has three axes; give DIPOptions(network=UNetOptions(dims=3, ...)).")
