"""What can be typed after ``ctuq``: one class a command, its options as fields. Nothing heavy is imported here."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ctuq.app.arguments import Command, File, Name, Number, On
from ctuq.systematics.catalogue import DEFAULT

_Output = arg(aliases=["-o"], metavar="PATH")
_Scans = Positional[Annotated[tuple[Path, ...], arg(metavar="SCAN [SCAN ...]", help_behavior_hint="(required)")]]


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Reconstruct the shipped real walnut scan (30 of its 120 views) with uncertainty, and open the report."""

    output: Annotated[Path, _Output] = Path("ctuq-demo")
    """Folder for the results."""
    size: int = 96
    """Pixels along x and y."""
    threads: Number = None
    """Processor threads; by default one or all, whichever is quicker, unless OMP_NUM_THREADS is set."""
    open: On = True
    """Do not open the report in a browser."""
    resume: On = False
    """Go on where an interrupted run of this folder stopped."""
    overwrite: On = False
    """Replace what an earlier run left in this folder."""


@dataclass(frozen=True, kw_only=True)
class Info(Command):
    """Say what is in a scan file: geometry, angles, counts, units, and what is missing."""

    scan: _Scans
    """One scan file, or several parts of one scan."""
    geometry: File = None
    """YAML file with the geometry, for formats that hold none."""
    follow_links: On = False
    """Let an HDF5 file take data from outside its folder."""
    entry: Name = None
    """Entry of an NXtomo file that holds several."""
    draw: File = None
    """Draw the geometry into this PNG file."""
    volume: On = False
    """Read all detector rows as one volume, and draw its geometry from three sides."""


@dataclass(frozen=True, kw_only=True)
class Simulate(Command):
    """Simulate a scan of a phantom, parallel rays through a slice or rays of any kind through a volume; its truth is kept."""

    output: Annotated[Path, _Output]
    """HDF5 file to write."""
    phantom: Literal["rectangles", "ellipses", "shepp-logan", "glyph", "ball", "shells"] = "rectangles"
    """What is scanned; ball and shells are volumes."""
    size: int = 128
    """Pixels along x and y."""
    angles: Annotated[int | Path, arg(metavar="N|FILE")] = 20
    """Number of views over half a turn (of a cone a whole one), or a text file of their angles in degrees."""
    cone: Annotated[str | None, arg(metavar="A:D", help_behavior_hint="")] = None
    """Of volumes: a cone beam with these distances in mm from its source to axis and detector, such as 100:200."""
    noise: str = "5%"
    """Standard deviation relative to the mean projection, such as 5% or 0.05."""
    seed: int = 0
    """Of the phantom and the noise."""


@dataclass(frozen=True, kw_only=True)
class Convert(Command):
    """Write a scan of any format, or a part of it, as ctuq's own HDF5 (OUT.h5) or as NXtomo for other programs (OUT.nx)."""

    scan: Positional[Annotated[Path, arg(metavar="IN")]]
    """A scan file, or a pattern in quotes for several parts of one scan, such as 'part*.h5'."""
    output: Positional[Annotated[Path, arg(metavar="OUT")]]
    """File to write."""
    format: Literal["auto", "ctuq", "nxtomo"] = "auto"
    """Of OUT; by its name if left out: .h5 and .hdf5 are ctuq's own, .nx and .nxs NXtomo."""
    every: Number = None
    """Keep every N-th view."""
    angles: Annotated[str | None, arg(metavar="A,B,...", help_behavior_hint="")] = None
    """Keep the views at these angles in degrees, such as 0,12,40."""
    rows: Annotated[str | None, arg(metavar="N|A:B", help_behavior_hint="")] = None
    """Keep this detector row, or rows A to B - 1 of one file as one volume's scan, counted as IN has them; the middle one by
    default."""
    columns: Annotated[str | None, arg(metavar="A:B", help_behavior_hint="")] = None
    """Keep detector columns A to B - 1."""
    geometry: File = None
    """YAML file with the geometry, for formats that hold none."""
    entry: Name = None
    """Entry of an NXtomo file that holds several."""
    follow_links: On = False
    """Let an HDF5 file take data from outside its folder."""
    truth: File = None
    """Known image to keep with the scan of one row: a TIFF, PNG or FITS picture of two values, material and air."""


@dataclass(frozen=True, kw_only=True)
class Reconstruct(Command):
    """Reconstruct a scan, say how sure each pixel is, and write results, images and a report."""

    scan: _Scans
    """One scan file, or several parts of one scan."""
    output: Annotated[Path | None, arg(aliases=["-o"], metavar="PATH", help_behavior_hint="(default: ctuq-SCAN)")] = None
    """Folder for results.h5, mean.tif, std.tif, report.html and figures/."""
    plan: On = False
    """Say which way is taken, and the memory and minutes it needs, and stop."""
    method: Literal["dip", "fbp", "sirt", "cgls", "tv", "fdk"] = "dip"
    """Deep image prior; tv, with error bars in seconds; or a method without; of volumes dip, fdk, sirt, cgls or tv."""
    volume: On = False
    """Reconstruct all detector rows as one volume; else one row as a slice, or with --stack each row."""
    stack: On = False
    """Reconstruct every detector row of a parallel scan as a slice of its own, with error bars."""
    slices: Annotated[str | None, arg(metavar="A:B[:STEP]", help_behavior_hint="")] = None
    """Of a stack: slices A to B - 1, counted from 0, the lowest; all by default."""
    covariance: Annotated[float | None, arg(metavar="GIB", help_behavior_hint="")] = None
    """Of a stack: most GiB of the results that keep the slices' covariances, for ctuq measure; 1 by default, 0 keeps none."""
    workers: Number = None
    """Of a stack: processes to work on slices side by side; one processor each."""
    scheduler: Name = None
    """Of a stack: address of a dask scheduler whose workers do it, such as tcp://10.0.0.1:8786."""
    size: int = 128
    """Pixels along x and y."""
    field: Annotated[str | None, arg(metavar="MM|all|common", help_behavior_hint="")] = None
    """Width of the image in mm, or of all that was measured, or of what every view sees; by default all of the object."""
    every: Number = None
    """Use every N-th view."""
    angles: Annotated[str | None, arg(metavar="A,B,...", help_behavior_hint="")] = None
    """Use the views at these angles in degrees, such as 0,12,40."""
    uncertainty: On = True
    """Leave out the standard deviation of each pixel."""
    systematics: Annotated[str, arg(metavar="none|default|all|NAMES", help_behavior_hint="")] = DEFAULT
    """What the scanner may do wrong, as a part of the error bars: names such as axis,flux,hardening=0.1 (a width). By default
    beam hardening, unless the file says that the beam is monochromatic, and, but of arcs, the rotation axis and gains of
    detector columns (rings)."""
    material: Literal["any", "uniform"] = "any"
    """Of an object that is known to be of one material, uniform: its rays then tell beam hardening, which is taken out."""
    bars: Annotated[str | None, arg(name="uncertainty", metavar="KIND", help_behavior_hint="")] = None
    """Of dip laplace, last-layer, plug-in, diagonal, ensemble, dropout or sgld; of tv edges, gmrf or matern; of any constant,
    noise or bootstrap."""
    samples: Number = None
    """Posterior samples to keep; 64 by default, of volumes 32."""
    roi: Annotated[str | None, arg(metavar="Z0:Z1,Y0:Y1,X0:X1", help_behavior_hint="")] = None
    """Of volumes: error bars and samples of these voxels only, counted from 0 as in mean.tif; the last ones are left out."""
    calibrate: On = True
    """Hold no views out; the scale of the uncertainty is then the model's own, and nothing checks it."""
    calibration_views: Number = None
    """How many views to hold out; by default none below 5 views, 1 below 8, 2 below 12, 3 below 40, then one in 13."""
    resume: On = False
    """Go on where an interrupted run of this folder stopped."""
    overwrite: On = False
    """Replace what an earlier run left in this folder."""
    geometry: File = None
    """YAML file with the geometry, for formats that hold none."""
    follow_links: On = False
    """Let an HDF5 file take data from outside its folder."""
    entry: Name = None
    """Entry of an NXtomo file that holds several."""
    truth: File = None
    """Known image to score against, never used to reconstruct; one in the scan's own file is taken by itself. Of a slice a
    TIFF, PNG or FITS picture of two values; of volumes and stacks a TIFF stack, .npy, scan or results.h5."""
    iterations: Number = None
    """Most iterations: of the network's fit, which by default stops by itself, by rays that it is not fitted to, or of sirt,
    cgls and tv."""

    @property
    def of_network(self) -> int | None:
        """Iterations where they are those of a network's fit."""
        return self.iterations if self.method == "dip" else None

    @property
    def of_method(self) -> int | None:
        """Iterations where they are those of another method."""
        return None if self.method == "dip" else self.iterations

    prior: Literal["isotropic", "layerwise", "filter", "g"] = "isotropic"
    """Of the network's weights: one variance, one a layer, one a group of filters, or g."""
    variation: float = 0.0
    """Strength of the hyperprior that favours images of little total variation; 0 leaves it out."""
    start: Literal["educated", "random"] = "educated"
    """Of the network: weights trained on simulated scans, or drawn by --seed."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Number = None
    """Processor threads; by default one or all, whichever is quicker, unless OMP_NUM_THREADS is set."""
    seed: int = 0
    """Of network weights and samples."""

    @property
    def folder(self) -> Path:
        """Where the results go: by default into a folder of the scan's name, where the command is typed."""
        if self.output is not None:
            return self.output
        # Of a pattern what all of its files share; '..' has no name of its own.
        name = re.sub(r"[*?\[\]]+", "", self.scan[0].absolute().stem).strip(" ._-")
        return Path(f"ctuq-{name or 'scan'}")


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Rebuild the HTML report and the figures from a folder's results file."""

    folder: Positional[Path]
    """Folder with results.h5."""


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Write a volume's mean and standard deviation for other programs: OME-Zarr (OUT.zarr) or TIFF stacks (a folder)."""

    folder: Positional[Path]
    """Folder with results.h5 of a volume or a stack."""
    output: Positional[Annotated[Path, arg(metavar="OUT")]]
    """Folder to write: OME-Zarr if its name ends in .zarr, else mean.tif and std.tif."""


@dataclass(frozen=True, kw_only=True)
class Doctor(Command):
    """Check this installation: versions, GPU, ASTRA's CUDA, the exact adjoint, known clashes, memory and disk."""
