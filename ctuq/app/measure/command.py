"""``ctuq measure``: read a result, measure, tell and write a table."""

import csv
import io
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from ctuq.app.folder import RESULTS
from ctuq.app.measure.answers import Answer, Answers
from ctuq.app.measure.images import of_image
from ctuq.app.measure.options import Measure
from ctuq.app.measure.sources import asked
from ctuq.app.measure.stacks import of_stack
from ctuq.app.measure.table import put_into_report
from ctuq.app.measure.volumes import of_volume
from ctuq.app.terminal import cell, give, say, warn
from ctuq.errors import InputError
from ctuq.quantities import Quantity
from ctuq.quantities.quantity import checked_level
from ctuq.records import kind_of, write_whole
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.volume import KIND as VOLUME
from ctuq.uncertainty.results.volume import VolumeResult
from ctuq.uncertainty.results.volume_questions import NO_COVARIANCE

_OTHER = (
    "The coverage of quantities was measured on images of the deep image prior and of tv; of {method} nobody has, and its "
    "edges may be blurred otherwise."
)
_OF_TV = (
    "Areas, centres and thicknesses by tv were measured on the holes of 21 real discs alone: 95 % intervals hold 99 % of areas "
    "from whole turns, 89 % over arcs, and 99 % of centres and widths."
)
"""By `experiments.htc`; other quantities were asked of simulated objects, too (docs/quantities.md)."""
_BY_EDGES = ("mm", "mm^2")
"""Units of what depends on a slice's edges."""
_USUAL = (True, "edges")
"""Error bars of tv whose quantities were measured, as `settings` has them."""
GUESSED = "edges across these are guessed"
"""In the warning of a result that views leave directions out (`ctuq.uncertainty.calibration.directions`)."""
_OVER_ARCS = (
    "Views leave directions out: of simulated scans over 90 degrees 95 % intervals hold 98 % of means and 93 % of centres, but "
    "89 % of areas and 87 % of thicknesses."
)
_TABLES = (".csv", ".tsv", ".txt")
_COLUMNS = (
    "name", "value", "standard_uncertainty", "coverage_factor", "lower", "upper", "level", "unit", "draws", "monte_carlo_error"
)  # fmt: skip


def measure(command: Measure) -> int:
    """Measure what is asked, tell what is refused of it, and refuse all only where nothing could be told; the exit code."""
    checked_level(command.level)
    if command.csv is not None:
        _refuse_other_file(command.csv)
    file = _file(command.results)
    if kind_of(file) == VOLUME:
        answers, warnings = _of_file_of_volume(file, command)
    else:
        result = _opened(file)
        answers = _of_image(result, command)
        warnings = result.warnings + _doubts(result, answers.quantities)
    quantities, refused = answers.quantities, answers.sentences
    give(quantities=quantities, refused=answers.refused)
    if not quantities:
        raise InputError("; ".join(sentence.rstrip(".") for sentence in refused) + ".")
    warn(refused)
    warn(warnings + ((_OVER_ARCS,) if any(GUESSED in text for text in warnings) else ()))
    for answer in answers.told:
        _tell(answer)
    warn(dict.fromkeys(note for quantity in quantities for note in quantity.notes))
    if command.csv is not None:
        text = table(quantities)
        write_whole(command.csv, lambda target: target.write(text.encode()))
        say(f"Written: {command.csv}, {len(quantities)} quantities.")
    put_into_report(file, answers.shown)
    return 0


def _refuse_other_file(path: Path) -> None:
    """Refuse to write a table over a file that is none by its name, such as the scan."""
    if path.is_file() and path.suffix.lower() not in _TABLES:
        raise InputError(
            f"'{path}' exists and is no table by its name, so that --csv does not write over it; name a file that ends with "
            f"{' or '.join(_TABLES)}."
        )


def _doubts(result: Result | VolumeResult, quantities: Sequence[Quantity]) -> tuple[str, ...]:
    """What was not measured of quantities by a result's method."""
    method, settings = result.method, result.settings
    if method == "tv" and "error_bars" not in settings:
        if (kind := settings.get("uncertainty", True)) not in _USUAL:
            return (_OTHER.format(method=f"{method} with the error bars {kind}"),)
        return (_OF_TV,) if any(quantity.unit in _BY_EDGES for quantity in quantities) else ()
    return () if method == "dip" else (_OTHER.format(method=method),)


def _of_file_of_volume(file: Path, command: Measure) -> tuple[Answers, tuple[str, ...]]:
    """What is asked of a volume or of a stack, whose slices are read one by one; and its warnings."""
    with VolumeResult.open(file) as volume:
        if volume.directions is None and "stack" in volume.settings:
            raise InputError(NO_COVARIANCE)
        if volume.directions is None:
            if command.slices is not None:
                raise InputError("--slices is of stacks whose slices keep their covariance; leave it out of other results.")
            return of_volume(volume, command), volume.warnings
        opened = nullcontext() if command.difference is None else VolumeResult.open(_file(command.difference))
        with opened as other:
            if other is not None and other.directions is None:
                raise InputError(NO_COVARIANCE)
            answers = of_stack(volume, command, other)
        return answers, volume.warnings + _doubts(volume, answers.quantities)


def _of_image(result: Result, command: Measure) -> Answers:
    if command.slices is not None:
        raise InputError("--slices is of stacks, and the result is one slice; leave it out.")
    wanted = asked(command, result.grid)
    other = None if command.difference is None else _opened(_file(command.difference))
    return of_image(result, wanted, other, command.level)


def table(quantities: tuple[Quantity, ...]) -> str:
    """CSV: a row each, with the variance by its source and what to know in the last columns."""
    sources = list(dict.fromkeys(source for quantity in quantities for source in quantity.budget))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*_COLUMNS, *(f"variance of {source}" for source in sources), "notes"])
    for q in quantities:
        numbers = (q.value, q.standard_uncertainty, q.coverage_factor, *q.interval, q.level)
        plain = (q.name, *(f"{n:.9g}" for n in numbers), q.unit, q.draws, f"{q.monte_carlo_error:.3g}")
        parts = (f"{q.budget[source]:.6g}" if source in q.budget else "" for source in sources)
        writer.writerow([cell(q.name), *plain[1:], *parts, cell(" ".join(q.notes))])
    return file.getvalue()


def _file(path: Path) -> Path:
    file = path / RESULTS if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"There is no results file '{file}'; name the results.h5 that ctuq reconstruct wrote.")
    return file


def _opened(file: Path) -> Result:
    result = Result.load(file)
    if result.std is None or result.directions is None:
        raise InputError(f"'{file}' holds no uncertainty (method {result.method}); reconstruct with error bars.")
    return result


def _tell(answer: Answer) -> None:
    """A line each, and its variance by source; of a profile some points, each without."""
    if answer.step > 1:
        values = [quantity.value for quantity in answer.quantities]
        span = f"{min(values):.4g} to {max(values):.4g} {answer.quantities[0].unit}"
        say(f"{answer.name}: {len(values)} points, {span}; of every {answer.step} one is shown, --csv and --json hold all.")
    for quantity in answer.shown:
        say(str(quantity))
        if not answer.is_line:
            _tell_variance(quantity)


def _tell_variance(quantity: Quantity) -> None:
    total = quantity.standard_uncertainty**2
    if quantity.budget and total > 0:
        say("    variance: " + ", ".join(f"{100 * part / total:.0f} % {source}" for source, part in quantity.budget.items()))
