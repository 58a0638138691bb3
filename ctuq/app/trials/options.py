"""What can be typed after ``ctuq design simulate`` and ``ctuq design compare``. Nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ctuq.app.arguments import Command, File

_Output = arg(aliases=["-o"], metavar="FOLDER")


@dataclass(frozen=True, kw_only=True)
class Simulate(Command):
    """Let an adaptive design, equidistant, golden-ratio and random angles compete on a phantom or on a scan with many views."""

    object: Positional[Annotated[tuple[str, ...], arg(metavar="SCAN_OR_PHANTOM", help_behavior_hint="(required)")]]
    """A scan file (or several parts of one scan), or rectangles, ellipses, glyph or shepp-logan."""
    output: Annotated[Path, _Output]
    """Folder for the trials and their comparison; trials that are there are not run again."""
    criterion: Literal["eig", "diagonal-eig", "ese", "a"] = "eig"
    """Information gain, the same for independent rays, squared error of the view, or reduction of the image's variance."""
    prior: Literal["lindip", "gprior", "isotropic", "matern", "edges", "displaced", "lindip+edges"] = "lindip"
    """What is assumed of the image: linearised Deep Image Prior (gprior: another prior of its weights), or classical."""
    pilot: int = 5
    """Equidistant angles measured first."""
    total: int = 40
    """Angles in the end, pilot included."""
    batch: int = 1
    """Angles chosen at once."""
    retrain_every: int = 0
    """Fit the network again after so many further angles; 0 never."""
    size: int = 64
    """Pixels along x and y."""
    candidates: int = 200
    """Angles over half a turn, for a phantom."""
    every: int = 1
    """Offer every N-th view of a scan; the others only judge."""
    noise: float = 0.05
    """Standard deviation over the mean projection, for a phantom."""
    images: int = 1
    """How many phantoms."""
    seed: int = 0
    """Of the first phantom."""
    random: int = 5
    """How many random designs."""
    reconstruct: Literal["tv", "dip", "both"] = "tv"
    """Reconstruction that judges all designs alike; dip at every fifth number of angles."""
    strength: float = 0.5
    """Of the total variation that judges."""
    geometry: File = None
    """YAML file with the geometry, for formats that hold none."""
    truth: File = None
    """Known image to score against, never used to choose: a TIFF, PNG or FITS picture of two values; one in the scan's own file
    is taken by itself."""


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Curves of quality against the number of angles for all strategies in some folders, and the angles each saves."""

    folders: Positional[Annotated[tuple[Path, ...], arg(metavar="FOLDER [FOLDER ...]", help_behavior_hint="(required)")]]
    """Folders that ctuq design simulate wrote."""
    output: Annotated[Path | None, arg(aliases=["-o"], metavar="FOLDER", help_behavior_hint="")] = None
    """Where to write; by default the first folder."""
