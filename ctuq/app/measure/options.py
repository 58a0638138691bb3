"""What can be typed after ``ctuq measure``. Nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from ctuq.app.arguments import Command, File


def _texts(metavar: str):
    return arg(metavar=metavar, help_behavior_hint="(may be repeated)")


Texts = UseAppendAction[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Measure(Command):
    """Measure a result: means, contrasts, areas, thicknesses, profiles, probabilities and changes, each with its interval."""

    results: Positional[Annotated[Path, arg(metavar="RESULTS.h5")]]
    """Results file, or the folder that ctuq reconstruct wrote."""
    region: Annotated[Texts, _texts("[NAME=]SHAPE:...")] = ()
    """circle:x,y,r or rectangle:x0,y0,x1,y1 or polygon:x,y,x,y,... in mm, of a volume sphere:x,y,z,r, box:x0,y0,z0,x1,y1,z1
    or cylinder:x,y,r,z0,z1, of either mask:FILE (TIFF, PNG, .npy), whose mean is measured; unnamed it is a, b, ..."""
    slices: Annotated[str | None, arg(metavar="N|A:B[:STEP]", help_behavior_hint="")] = None
    """Of a stack: slice N, or slices A to B - 1, counted as by --slices of the reconstruction, where circles and lines are
    measured; by default all that could be made. Spheres, boxes and cylinders are measured through all slices that they meet."""
    regions: File = None
    """YAML file with regions and the options below by their names, or ImageJ's regions (.roi, .zip)."""
    contrast: Annotated[Texts, _texts("A,B")] = ()
    """Mean of region A less that of region B, by their names."""
    probability: Annotated[Texts, _texts("above=X|below=X[,at_least=A]")] = ()
    """That the mean of each region lies above, or below, X in 1/mm; with at_least=A that a connected part of A mm^2 (of a
    volume mm^3) does."""
    fraction: Annotated[Texts, _texts("above=X|below=X")] = ()
    """Share of each region's area above, or below, X in 1/mm, and that area."""
    porosity: Annotated[Texts, _texts("below=X")] = ()
    """The same as --fraction, by another name."""
    centre: Annotated[Texts, _texts("above=X|below=X")] = ()
    """Centre of what lies above, or below, X in each region."""
    thickness: Annotated[Texts, _texts("X0,Y0,X1,Y1[,X]")] = ()
    """Width of the wall or hole that a line in mm crosses, at X in 1/mm; half way between inside and outside by default."""
    profile: Annotated[Texts, _texts("X0,Y0,X1,Y1")] = ()
    """Values along a line in mm, half a pixel apart."""
    difference: File = None
    """Another result of the same object and grid: the mean of each region here less that in it."""
    level: float = 0.95
    """Probability that an interval is to hold."""
    csv: File = None
    """Write a table of all quantities and their variance by source into this file."""
