"""The ``ctuq`` command: what can be typed, and how trouble is told.

Nothing heavy is imported here, so that help is quick; each command imports what it needs when it runs.
"""

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from ctuq.app.arguments import Command, File, Name, Number, On
from ctuq.app.design.cli import Design
from ctuq.app.folder import run_folder
from ctuq.app.terminal import say
from ctuq.errors import CtuqError, InputError, ResourceError
from ctuq.text import visible
from ctuq.versions import version_of

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_MEMORY = ("out of memory", "not enough memory", "t allocate memory", "cannot allocate memory")
_Output = arg(aliases=["-o"], metavar="PATH")
_Scans = Positional[Annotated[tuple[Path, ...], arg(metavar="SCAN [SCAN ...]", help_behavior_hint="(required)")]]


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Reconstruct the shipped real walnut scan (30 of its 120 views) with uncertainty, and open the report."""

    output: Annotated[Path, _Output] = Path("ctuq-demo")
    """Folder for the results."""
    size: int = 96
    """Pixels along x and y."""
    open: On = True
    """Do not open the report in a browser."""
    resume: On = False
    """Go on where an interrupted run of this folder stopped."""
    overwrite: On = False
    """Replace what an earlier run left in this folder."""

    def run(self) -> int:
        with run_folder(self.output, resume=self.resume, overwrite=self.overwrite):
            from ctuq.app import commands

            return commands.demo(self)


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

    def run(self) -> int:
        from ctuq.app import commands

        return commands.info(self)


@dataclass(frozen=True, kw_only=True)
class Simulate(Command):
    """Simulate a parallel-beam scan of a phantom; its truth is kept for scoring."""

    output: Annotated[Path, _Output]
    """HDF5 file to write."""
    phantom: Literal["rectangles", "ellipses", "shepp-logan", "glyph"] = "rectangles"
    """What is scanned."""
    size: int = 128
    """Pixels along x and y."""
    angles: Annotated[int | Path, arg(metavar="N|FILE")] = 20
    """Number of views over half a turn, or a text file of their angles in degrees."""
    noise: str = "5%"
    """Standard deviation relative to the mean projection, such as 5% or 0.05."""
    seed: int = 0
    """Of the phantom and the noise."""

    def run(self) -> int:
        from ctuq.app import commands

        return commands.simulate(self)


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
    """Keep this detector row, or for NXtomo rows A to B - 1; the middle one by default."""
    columns: Annotated[str | None, arg(metavar="A:B", help_behavior_hint="")] = None
    """Keep detector columns A to B - 1."""
    geometry: File = None
    """YAML file with the geometry, for formats that hold none."""
    entry: Name = None
    """Entry of an NXtomo file that holds several."""
    follow_links: On = False
    """Let an HDF5 file take data from outside its folder."""
    truth: File = None
    """Known image to keep with the scan."""

    def run(self) -> int:
        from ctuq.app import conversion

        return conversion.convert(self)


@dataclass(frozen=True, kw_only=True)
class Reconstruct(Command):
    """Reconstruct a scan, say how sure each pixel is, and write results, images and a report."""

    scan: _Scans
    """One scan file, or several parts of one scan."""
    output: Annotated[Path | None, arg(aliases=["-o"], metavar="PATH", help_behavior_hint="(required)")] = None
    """Folder for results.h5, mean.tif, std.tif, report.html and figures/."""
    plan: On = False
    """Say which way is taken, and the memory and minutes it needs, and stop."""
    method: Literal["dip", "fbp", "sirt", "cgls", "tv"] = "dip"
    """Deep image prior, or a classical method (without uncertainty)."""
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
    samples: int = 64
    """Posterior samples to keep."""
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
    """Known image to score against; never used to reconstruct."""
    start: Literal["educated", "random"] = "educated"
    """Of the network: weights trained on simulated scans, or drawn by --seed."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Number = None
    """Processor threads; by default one or all, whichever is quicker, unless OMP_NUM_THREADS is set."""
    seed: int = 0
    """Of network weights and samples."""

    def run(self) -> int:
        if self.plan:
            from ctuq.app import commands

            return commands.plan(self)
        if self.output is None:
            raise InputError("Name the folder for the results: -o FOLDER.")
        # Claimed before anything heavy is imported: that takes seconds, and a run that is killed there has begun.
        with run_folder(self.output, resume=self.resume, overwrite=self.overwrite):
            from ctuq.app import commands

            return commands.reconstruct(self, self.output)


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Rebuild the HTML report and the figures from a folder's results file."""

    folder: Positional[Path]
    """Folder with results.h5."""

    def run(self) -> int:
        from ctuq.app import commands

        return commands.report(self)


@dataclass(frozen=True, kw_only=True)
class Doctor(Command):
    """Check this installation: versions, GPU, ASTRA's CUDA, the exact adjoint, known clashes, memory and disk."""

    def run(self) -> int:
        from ctuq.app import commands

        return commands.doctor(self)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    0 done, 1 a defect of ctuq, 2 wrong input, 3 interrupted, 4 not enough memory or disk.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments == ["--version"]:
        print(version_of("ctuq") or "unknown (not installed, run from source)")
        return 0
    command = tyro.cli(
        Demo | Info | Simulate | Convert | Reconstruct | Design | Report | Doctor,
        prog="ctuq",
        description="X-ray CT that says how sure it is.",
        args=arguments or ["--help"],
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    _let_threads_sleep()
    try:
        with _ended_by_signals():
            return command.run()
    except (Exception, KeyboardInterrupt) as error:
        if command.debug:
            traceback.print_exc()
        sentence, code = _told(error)
        notes = [note.rstrip(".") for note in getattr(error, "__notes__", [])]
        say(f"ctuq: {visible('; '.join([sentence.rstrip('.'), *notes]))}.", stream=sys.stderr)
        return code


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM (of batch systems) and SIGHUP (of terminals) are what Ctrl-C is; one that is ignored, as by nohup, stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}

    def interrupt(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) is signal.SIG_DFL:
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _let_threads_sleep() -> None:
    """Where another program has the other processors, threads that spin while they wait slow a fit down eight times.

    OpenMP reads this when torch is loaded. Only the command does it: a program that imports ctuq keeps its own settings.
    """
    if "torch" not in sys.modules and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & set(os.environ):
        os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0")


def _told(error: BaseException) -> tuple[str, int]:
    """One sentence and an exit code for whatever went wrong."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return text or "Interrupted; nothing was written.", 3
    if isinstance(error, CtuqError):
        return text, 4 if isinstance(error, ResourceError) else 2
    if isinstance(error, MemoryError) or _is_allocation_failure(error, text):
        return "There is too little memory for this; choose a smaller --size, fewer views or fewer --samples.", 4
    if isinstance(error, OSError):
        return _told_by_system(error, text)
    return f"A defect of ctuq ({type(error).__name__}: {text}); please report it with the output of --debug.", 1


def _is_allocation_failure(error: BaseException, text: str) -> bool:
    return isinstance(error, RuntimeError) and any(words in text.lower() for words in _NO_MEMORY)


def _told_by_system(error: OSError, text: str) -> tuple[str, int]:
    if error.errno in _DISK_FULL:
        return "The disk is full, so the output was not written; make room or choose another folder with -o.", 4
    if error.errno == errno.ENOMEM:
        return "There is too little memory for this; close other programs, or choose a smaller --size.", 4
    if error.strerror and error.filename:
        return f"{error.filename}: {error.strerror.lower()}.", 2
    return text, 2
