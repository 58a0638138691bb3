"""What can be typed after ``ctuq design``. Nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ctuq.app.arguments import Amount, Command, File, Number, On
from ctuq.app.trials.options import Compare, Simulate

_Session = Positional[Annotated[Path, arg(metavar="SESSION.h5")]]
_Angles = Annotated[str | None, arg(metavar="A,B,...", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Start(Command):
    """Begin a session: the scanner's geometry, the angles that it can stop at, and what is wanted."""

    session: _Session
    """HDF5 file to make."""
    geometry: Annotated[Path, arg(metavar="GEOM.yml")]
    """YAML file with the geometry as for TIFF stacks, in degrees and mm, with 'columns:' and, of an area detector, 'rows:'."""
    columns: Number = None
    """Detector columns, where the geometry file does not say them."""
    candidates: Annotated[str | None, arg(metavar="FIRST:STOP:STEP", help_behavior_hint="")] = None
    """Angles in degrees that can be measured, without STOP; by default the geometry file's, else 0:180:1 (fan 0:360:1; of an
    area detector 1.25:180:2.5, and 2.5:360:5 of a cone)."""
    forbid: Annotated[str | None, arg(metavar="FROM:TO,...", help_behavior_hint="")] = None
    """Arcs in degrees that are never suggested, such as 80:100."""
    prior: Literal["lindip", "gprior", "isotropic", "matern", "edges", "displaced", "lindip+edges"] = "lindip"
    """What is known of the image before it is measured: a network's tangent model (lindip, gprior), or classical."""
    criterion: Literal["eig", "diagonal-eig", "ese", "a"] = "eig"
    """Information gain, that of single rays, squared error of the projection, or of the image (a)."""
    size: Number = None
    """Pixels along x and y of the image that the design is made on: 128 by default; of an area detector 16, and 40 at most."""
    pilot: int = 5
    """Equidistant views that come first."""
    batch: int = 1
    """Angles to suggest at once."""
    dose_budget: Amount = None
    """Total dose; every exposure costs 1 unless --exposures says otherwise."""
    exposures: File = None
    """Text file of lines 'angle dose' (degrees); between its angles the dose is interpolated."""
    rotation_cost: float = 0.0
    """Cost of turning by one degree, in exposures; scores are divided by dose plus turning."""
    endless: On = False
    """The stage turns through 360 degrees the shorter way."""
    stop_gain: Amount = None
    """Advise to stop when the best angle gains less."""
    stop_error: Amount = None
    """Advise to stop when the predicted error (1/mm) is smaller."""
    roi: Annotated[str | None, arg(metavar="X0,X1,Y0,Y1", help_behavior_hint="")] = None
    """Region that matters, in mm from the rotation axis: for criterion a and the predicted error."""
    retrain_every: Annotated[str, arg(metavar="K|never")] = "never"
    """Learn the model again after every K further views."""
    iterations: Number = None
    """Most iterations of the network's first fit."""
    tolerance: float = 0.01
    """How far in degrees a measured angle may be from the angle that was suggested."""


@dataclass(frozen=True, kw_only=True)
class Suggest(Command):
    """Print the next angles, what they are predicted to gain, and why to go on or stop."""

    session: _Session
    """A session's file."""
    n: Annotated[int | None, arg(aliases=["-n"], metavar="N", help_behavior_hint="")] = None
    """How many; the session's batch by default."""
    pending: _Angles = None
    """Angles in degrees that are being measured now: they count as measured."""


@dataclass(frozen=True, kw_only=True)
class Tell(Command):
    """Take in new projections, or take bad ones back, and work out the next angles."""

    session: _Session
    """A session's file."""
    projections: Positional[Annotated[tuple[Path, ...], arg(metavar="[NEW ...]", help_behavior_hint="")]] = ()
    """Files of any format that ctuq reads, with the new views only."""
    geometry: File = None
    """YAML file for them, where it differs from the session's: 'angles: [36, 72]' is enough."""
    angles: _Angles = None
    """Their angles in degrees, for files that hold none."""
    reject: _Angles = None
    """Angles in degrees whose projections are bad, or whose exposure failed."""
    final: On = False
    """Rejected angles are not suggested again."""
    anyway: On = False
    """Take in projections inside of forbidden arcs, too."""
    because: Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")] = None
    """Why they are rejected, for the log."""
    dose_budget: Amount = None
    """Total dose from now on, what was spent included."""
    retrain: On = True
    """Leave a re-training that is due to 'ctuq design retrain', which can run while the scanner measures."""


@dataclass(frozen=True, kw_only=True)
class Status(Command):
    """Print what was measured, the dose, the predicted error, and the log of every decision."""

    session: _Session
    """A session's file."""
    draw: File = None
    """Draw the angles and their scores into this PNG file."""


@dataclass(frozen=True, kw_only=True)
class Retrain(Command):
    """Learn the model again from all views so far; the session can be used meanwhile."""

    session: _Session
    """A session's file."""


@dataclass(frozen=True, kw_only=True)
class Next(Command):
    """Print the next angles of a volume's scan (a cone or a parallel beam on an area detector), from the views in its file."""

    scan: Positional[Annotated[tuple[Path, ...], arg(metavar="SCAN [SCAN ...]", help_behavior_hint="(required)")]]
    """What was measured so far, of any format that holds volumes."""
    geometry: File = None
    """YAML file with the geometry, for formats that hold none."""
    n: Annotated[int, arg(aliases=["-n"], metavar="N")] = 1
    """How many."""
    candidates: Annotated[str | None, arg(metavar="FIRST:STOP:STEP", help_behavior_hint="")] = None
    """Angles in degrees that can be measured, counter-clockwise as 'ctuq info --volume' counts them; by default 2.5:360:5."""
    forbid: Annotated[str | None, arg(metavar="FROM:TO,...", help_behavior_hint="")] = None
    """Arcs in degrees that are never suggested, such as 80:100."""
    prior: Literal["edges", "matern", "isotropic", "lindip"] = "edges"
    """What is known of the volume before it is measured; lindip fits a network first, which takes minutes."""
    criterion: Literal["eig", "diagonal-eig", "ese", "a"] = "eig"
    """Information gain, that of single rays, squared error of the projection, or of the volume (a)."""
    size: int = 16
    """Voxels along x and y that the design is made on: 16 take seconds, 24 minutes."""
    rotation_cost: float = 0.0
    """Cost of turning by one degree, in exposures; scores are divided by dose plus turning."""
    draw: File = None
    """Draw the angles and their scores into this PNG file."""


@dataclass(frozen=True, kw_only=True)
class Serve(Command):
    """Stay resident and answer a scanner's control program over HTTP on this machine, in a fraction of a second."""

    session: _Session
    """A session's file."""
    port: int = 0
    """Port on 127.0.0.1; 0 takes a free one, which the token's file tells."""
    token_file: File = None
    """Where address and token are written, readable by this user only; by default SESSION.h5.server.json."""


@dataclass(frozen=True)
class Design:
    """Choose the next angles from what was measured so far."""

    step: Start | Suggest | Tell | Status | Retrain | Next | Serve | Simulate | Compare

    @property
    def debug(self) -> bool:
        """Of the step."""
        return self.step.debug
