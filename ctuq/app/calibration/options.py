"""What can be typed after ``ctuq calibrate``. Nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ctuq.app.arguments import Amount, Command, File, Name, On
from ctuq.systematics.catalogue import DEFAULT

_Array = Annotated[str | None, arg(metavar="FILE[:NAME]", help_behavior_hint="")]
_Scans = Positional[Annotated[tuple[Path, ...], arg(metavar="SCAN [SCAN ...]", help_behavior_hint="(required)")]]


@dataclass(frozen=True, kw_only=True)
class Calibrate(Command):
    """Size the error bars of any program's image by views that it was not given, and write results and report.

    Arrays are read from .npy, .npz, .h5, .mat, .tif and .png; FILE:NAME names one of several.
    """

    scan: _Scans
    """The scan: all views, those that the image was made from and those that it was not."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="FOLDER")]
    """Folder for the results."""
    held_out: Annotated[str, arg(metavar="I,J,...|A:B:STEP")]
    """Views of the scan that the image was made without, counted from 0: 3,13,23 or 3::10."""
    image: _Array = None
    """The image (y, x) in 1/mm, row 0 at the largest y; the samples' mean by default."""
    samples: _Array = None
    """Draws of a posterior or a bootstrap, (n, y, x) or (n, y*x)."""
    covariance: _Array = None
    """Covariance of the pixels, (y*x, y*x)."""
    std: Annotated[str | None, arg(metavar="FILE[:NAME]|X", help_behavior_hint="")] = None
    """Standard deviation of each pixel (y, x), or one number for all, in 1/mm."""
    pixel: Amount = None
    """Edge of a pixel in mm, where the scan holds no grid of this shape."""
    centre: Annotated[str | None, arg(metavar="X,Y", help_behavior_hint="")] = None
    """Where the image's centre lies, mm from the rotation axis; at it by default."""
    sigma2: Amount = None
    """Noise variance of a ray of weight 1; read from the projections by default."""
    cautious: On = False
    """Let no error bar become shorter: for a bootstrap's, which are rather too short."""
    systematics: Annotated[str, arg(metavar="none|default|NAMES", help_behavior_hint="")] = DEFAULT
    """What the scanner may do wrong that no ray tells: hardening=0.1 (a width), scatter, scale; by default beam hardening, but
    where the file says that the beam is monochromatic."""
    name: Name = None
    """What to call the program in the report."""
    geometry: File = None
    """YAML file with the geometry, for formats that hold none."""
    entry: Name = None
    """Entry of an NXtomo file that holds several."""
    follow_links: On = False
    """Let an HDF5 file take data from outside its folder."""
    overwrite: On = False
    """Replace what an earlier run left in this folder."""
