"""A report from its results file, with what was measured of them."""

from pathlib import Path

from ctuq.app.report.page import draw_all, write_figures, write_report
from ctuq.app.report.volume import slice_pictures, write_volume_report
from ctuq.app.runs import REPORT
from ctuq.quantities import Quantity
from ctuq.records import kind_of
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.volume import KIND as VOLUME
from ctuq.uncertainty.results.volume import VolumeResult


def written_anew(results: Path, measured: tuple[Quantity, ...]) -> Path:
    """Write the report and its figures into the folder of the results; the report's path."""
    if kind_of(results) == VOLUME:
        with VolumeResult.open(results) as volume:
            return volume_report(volume, results.parent, measured)
    return image_report(Result.load(results), results.parent, measured)


def image_report(result: Result, folder: Path, measured: tuple[Quantity, ...] = ()) -> Path:
    """Of an image."""
    images = draw_all(result)
    write_report(result, folder / REPORT, images, measured)
    write_figures(images, folder / "figures")
    return folder / REPORT


def volume_report(result: VolumeResult, folder: Path, measured: tuple[Quantity, ...] = ()) -> Path:
    """Of a volume."""
    return write_volume_report(result, folder / REPORT, slice_pictures(result, folder / "figures"), measured)
