"""``ctuq measure``: read a result, measure, tell and write a table."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ctuq.app.folder import RESULTS
from ctuq.app.measure.kept import put_into_report
from ctuq.app.measure.options import Measure
from ctuq.app.measure.sources import asked
from ctuq.app.measure.texts import Asked, Limit, Shape, sides
from ctuq.app.measure.volumes import named_chance, of_volume
from ctuq.app.terminal import cell, give, say, warn
from ctuq.errors import InputError
from ctuq.quantities import Box, Quantity, Sphere
from ctuq.quantities.lines import Point
from ctuq.quantities.regions import Region, shares_of
from ctuq.records import kind_of, write_whole
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.volume import KIND as VOLUME
from ctuq.uncertainty.results.volume import VolumeResult

_OTHER = (
    "The coverage of quantities was measured on images of the deep image prior; of {method} nobody has, and its edges may be "
    "blurred otherwise."
)
_COLUMNS = (
    "name", "value", "standard_uncertainty", "coverage_factor", "lower", "upper", "level", "unit", "draws", "monte_carlo_error"
)  # fmt: skip


def measure(command: Measure) -> int:
    """Measure what is asked; the exit code."""
    file = _file(command.results)
    if kind_of(file) == VOLUME:
        volume = VolumeResult.load(file)
        quantities, warnings = tuple(of_volume(volume, command)), volume.warnings
    else:
        result = _opened(file)
        quantities, warnings = _of_image(result, command), result.warnings
        warnings += () if result.method == "dip" else (_OTHER.format(method=result.method),)
    give(quantities=quantities)
    warn(warnings)
    for quantity in quantities:
        _tell(quantity)
    warn(dict.fromkeys(note for quantity in quantities for note in quantity.notes))
    if command.csv is not None:
        text = table(quantities)
        write_whole(command.csv, lambda target: target.write(text.encode()))
        say(f"Written: {command.csv}, {len(quantities)} quantities.")
    put_into_report(file, quantities)
    return 0


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


def _of_image(result: Result, command: Measure) -> tuple[Quantity, ...]:
    wanted = asked(command, result.grid)
    regions = _flat(wanted.regions)
    other = None if command.difference is None else _opened(_file(command.difference))
    return tuple(_measured(result, wanted, regions, other, command.level))


def _flat(regions: Mapping[str, Shape]) -> dict[str, Region]:
    """Regions of a slice."""
    flat: dict[str, Region] = {}
    for name, region in regions.items():
        if isinstance(region, Sphere | Box):
            raise InputError(
                f"The region {name!r} is of a volume, and the result is a slice; give a circle, rectangle or polygon."
            )
        flat[name] = region
    return flat


def _measured(
    result: Result, wanted: Asked, regions: Mapping[str, Region], other: Result | None, level: float
) -> Iterator[Quantity]:
    for name, region in regions.items():
        yield result.region(region, name=f"mean of {name}", level=level)
        for limit in wanted.probabilities:
            yield result.probability(region, **sides(limit), name=named_chance(name, limit, "mm^2"))
        for limit in wanted.fractions:
            words = f"of {name} {_words(limit)}"
            above, below = limit.get("above"), limit.get("below")
            share = result.fraction(region, above=above, below=below, name=f"share {words}", level=level)
            yield share
            area = float(shares_of(region, result.grid).sum()) * result.grid.voxel**2
            yield replace(share.scaled(area, "mm^2"), name=f"area {words}")
        for limit in wanted.centres:
            above, below, words = limit.get("above"), limit.get("below"), f"{name} {_words(limit)}"
            yield from result.centre(region, above=above, below=below, name=f"centre of {words},", level=level)
        if other is not None:
            yield result.difference(other, region, name=f"change of {name}", level=level)
    for a, b in wanted.contrasts:
        yield result.contrast(regions[a], regions[b], name=f"{a} less {b}", level=level)
    for p, q, at in wanted.walls:
        yield result.thickness(p, q, at, name=f"thickness {_ends(p, q)}", level=level)
    for p, q in wanted.profiles:
        yield from result.profile(p, q, level=level, name=f"profile {_ends(p, q)}").points


def _ends(p: Point, q: Point) -> str:
    return f"{p[0]:g},{p[1]:g} to {q[0]:g},{q[1]:g}"


def _words(limit: Limit) -> str:
    return " ".join(f"{side} {value:g}" for side, value in limit.items())


def _tell(quantity: Quantity) -> None:
    say(str(quantity))
    total = quantity.standard_uncertainty**2
    if quantity.budget and total > 0:
        say("    variance: " + ", ".join(f"{100 * part / total:.0f} % {source}" for source, part in quantity.budget.items()))
