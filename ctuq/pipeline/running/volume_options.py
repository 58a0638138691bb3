"""What a user can choose of a volume's reconstruction."""

from dataclasses import dataclass
from dataclasses import field as of_default

from ctuq.errors import InputError
from ctuq.recon import VOLUMES
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.tomo.geometry import MOST_PIXELS
from ctuq.uncertainty.results.volume import Box

VOLUME_METHODS = ("dip", *VOLUMES)
_MOST_SAMPLES = 100_000
ITERATIONS = {"fdk": 1, "sirt": 200, "cgls": 50, "tv": 200}


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
    roi: Box | None = None
    dip: DIPOptions = of_default(default_factory=lambda: DIPOptions(network=UNetOptions(dims=3)))

    def __post_init__(self):
        if self.method not in VOLUME_METHODS:
            raise InputError(f"There is no method {self.method!r} for volumes; choose one of {', '.join(VOLUME_METHODS)}.")
        if not 2 <= self.size <= MOST_PIXELS:
            raise InputError(f"The volume's size must be 2 to {MOST_PIXELS} voxels, got {self.size}.")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"The threads must be a positive whole number, got {self.threads}.")
        if self.iterations is not None and not 1 <= self.iterations <= 100_000:
            raise InputError(f"The iterations must be 1 to 100,000, got {self.iterations}.")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"The seed must be between 0 and 2^63 - 1, got {self.seed}.")
        if not 0 <= self.samples <= _MOST_SAMPLES:
            raise InputError(f"The number of samples must be 0 to {_MOST_SAMPLES}, got {self.samples}.")
        if self.dip.module is not None:
            raise InputError("A network of one's own is for slices; leave it out of volumes.")
        if self.dip.network.dims != 3:
            raise InputError("The network of a volume has three axes; give DIPOptions(network=UNetOptions(dims=3, ...)).")
