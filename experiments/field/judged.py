"""What ctuq does with a kind of scan, and whether that is right."""

import contextlib
import io
import re
from dataclasses import dataclass
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ctuq.app import cli
from ctuq.errors import CtuqError
from ctuq.files import read
from ctuq.recon import fbp
from ctuq.tomo import Scan, VolumeGrid, ray_transform
from ctuq.tomo.axis import with_axis_column
from ctuq.tomo.geometry import ParallelBeam
from ctuq.uncertainty.results.image import Result
from experiments.field.scanned import AXIS, COLUMNS, DEGREES, DISCS, PIXEL, Discs, Make, integrals

SIZE, SIDE = 32, 19.2
_ALIKE, _LEVEL = 0.98, 0.06


@dataclass(frozen=True)
class Kind:
    """One kind of scan, and what is right for it.

    Parameters
    ----------
    name : str
    make : callable
        Makes the files in a folder; gives what the user names.
    right : {"image", "refused", "warned"}
        The image of the plain scan, a refusal, or a warning beside whatever image.
    words : str
        A pattern that the sentence of the refusal, or one of the warnings, must match.
    discs, axis
        The object and the column of the rotation axis.
    """

    name: str
    make: Make
    right: str
    words: str = ""
    discs: Discs = DISCS
    axis: float = AXIS


@dataclass(frozen=True)
class Outcome:
    """What ctuq did."""

    refusal: str = ""
    warnings: tuple[str, ...] = ()
    alike: float = 0.0
    level: float = 0.0
    untold: tuple[str, ...] = ()

    def is_right(self, kind: Kind) -> bool:
        """Whether it did what is right for a kind."""
        if kind.right == "refused":
            return bool(self.refusal and re.search(kind.words, self.refusal))
        told = not kind.words or any(re.search(kind.words, text) for text in self.warnings)
        as_plain = self.alike >= _ALIKE and abs(self.level - 1) <= _LEVEL
        return not self.refusal and not self.untold and told and (as_plain or kind.right == "warned")

    def words(self) -> str:
        """One line of it."""
        if self.refusal:
            return f"refused: {self.refusal}"
        figures = f"image alike {self.alike:.3f}, level {self.level:.2f}"
        missing = f"; NOT TOLD EVERYWHERE: {' '.join(self.untold)}" if self.untold else ""
        return f"{figures}; {' '.join(self.warnings) or 'no warning'}{missing}"


def outcome_of(kind: Kind, folder: Path) -> Outcome:
    """What the library does."""
    made = kind.make(folder)
    try:
        scan = read(made)
    except CtuqError as error:
        return Outcome(refusal=str(error))
    return Outcome(warnings=scan.warnings, **_compared(_image(scan), kind))


def outcome_of_command(kind: Kind, folder: Path) -> Outcome:
    """What the command does, by its terminal, ``ctuq info``, the head of its report and its results file."""
    made = kind.make(folder)
    names, run = [str(path) for path in (made if isinstance(made, list) else [made])], folder / "run"
    code, terminal = _command("reconstruct", *names, "-o", str(run), "--method", "fbp", "--size", str(SIZE))
    code_of_info, info = _command("info", *names)
    if code:
        sentence = terminal.splitlines()[-1].removeprefix("ctuq: ")
        alike = code == code_of_info == 2 and sentence in info
        return Outcome(refusal=sentence if alike else f"exit codes {code} and {code_of_info} of info: {sentence}")
    result = Result.load(run / "results.h5")
    page = (run / "report.html").read_text(encoding="utf-8")
    head = unescape(page[page.index("<header>") : page.index("</header>")])
    untold = tuple(
        text for text in result.scan.warnings if not all(text in place for place in (terminal, info, head, *[result.warnings]))
    )
    # The run's scan has its columns averaged to the size of its image.
    return Outcome(warnings=result.warnings, untold=untold, **_compared(_image(read(made)), kind))


def _command(*words: str) -> tuple[int, str]:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        code = cli.main(words)
    return code, text.getvalue()


def _image(scan: Scan) -> NDArray:
    """FBP on the plain scan's grid: what a wrong pixel size or a wrong axis makes of it stays visible."""
    grid = VolumeGrid((SIZE, SIZE), SIDE / SIZE)
    A = ray_transform(grid, scan.geometry)
    weights = None if scan.weights is None else torch.tensor(scan.weights)
    return fbp(A, torch.tensor(scan.projections), weights=weights).numpy()


@cache
def _plain(discs: Discs, axis: float) -> NDArray:
    beam = with_axis_column(ParallelBeam(angles=np.deg2rad(DEGREES), columns=COLUMNS, pixel=PIXEL), axis)
    return _image(Scan(integrals(axis=axis, discs=discs).astype(np.float32), beam))


def _compared(image: NDArray, kind: Kind) -> dict[str, Any]:
    plain, image = _plain(kind.discs, kind.axis).ravel().astype(float), image.ravel().astype(float)
    if not image.std() > 0:
        return {"alike": 0.0, "level": 0.0}
    return {"alike": float(np.corrcoef(plain, image)[0, 1]), "level": float(image @ plain / (plain @ plain))}
