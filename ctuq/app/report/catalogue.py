"""The pictures of a report: which there are, what they show, and for which results."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from ctuq.app.report import figures
from ctuq.app.report.geometry import draw_geometry
from ctuq.app.report.heldout import draw_coverage, draw_held_out
from ctuq.uncertainty.results.image import Result


@dataclass(frozen=True)
class Picture:
    """One picture of the report.

    Parameters
    ----------
    name : str
        File name without its ending.
    title, text : str
        Heading, and what is seen (caption and alternative text).
    draw : callable
        Result to Figure.
    applies : callable
        Whether this result has what the picture shows.
    """

    name: str
    title: str
    text: str
    draw: Callable[[Result], Figure]
    applies: Callable[[Result], bool] = lambda _: True


PICTURES: tuple[Picture, ...] = (
    Picture(
        "reconstructions",
        "Reconstructions in one grey window",
        "The reconstruction beside classical ones of the same views (and the truth where it is known), all in the same grey "
        "window.",
        figures.draw_reconstructions,
    ),
    Picture(
        "std",
        "How sure each pixel is",
        "Standard deviation of each pixel in 1/mm: bright where the measured rays say least about the image.",
        figures.draw_std,
        lambda result: result.std is not None,
    ),
    Picture(
        "error",
        "Error and standard deviation",
        "Absolute difference between reconstruction and truth beside the standard deviation, in one colour scale: good "
        "uncertainty is bright where the error is.",
        figures.draw_error,
        lambda result: result.truth is not None,
    ),
    Picture(
        "intervals",
        "95 % intervals",
        "Lower limit, mean and upper limit of each pixel's 95 % interval: what shows in both limits is certain.",
        figures.draw_intervals,
        lambda result: result.std is not None,
    ),
    Picture(
        "samples",
        "Samples of the posterior",
        "Images that explain the data about equally well, and what sets each apart from the mean: structures that come and "
        "go together are correlated errors.",
        figures.draw_samples,
        lambda result: result.samples is not None and len(result.samples) > 0,
    ),
    Picture(
        "calibration",
        "Calibration on held-out views",
        "Share of the rays of views that the fit never saw that fall inside their predicted interval, against the share "
        "that should; below the diagonal is over-confident.",
        draw_coverage,
        lambda result: result.calibration is not None,
    ),
    Picture(
        "held_out",
        "Held-out views, measured and predicted",
        "Measured and predicted rays of held-out views, and their difference with the 95 % band before and after calibration.",
        draw_held_out,
        lambda result: result.calibration is not None,
    ),
    Picture("sinogram", "Input sinogram", "The projections that were used, one row a view.", figures.draw_sinogram),
    Picture(
        "removed",
        "What was taken out of the sinogram",
        "What systematic errors of the scanner have done to the rays by their estimates from the fitted views: network and "
        "classical methods saw the sinogram without it. Of errors of single views, views held out keep theirs.",
        figures.draw_removed,
        lambda result: result.removed is not None,
    ),
    Picture(
        "geometry",
        "Geometry of the scan",
        "Source positions, detector and a few rays of the first view, image grid and the circle that every view sees; mm.",
        lambda result: draw_geometry(result.scan.geometry, result.grid),
    ),
    Picture(
        "history",
        "Course of the fit",
        "Misfit of fitted and of held-out rays over the iterations; the fit stops by a rule that never sees a truth.",
        figures.draw_history,
        lambda result: len(result.history.get("iteration", ())) > 1,
    ),
)


def pictures_of(result: Result) -> tuple[Picture, ...]:
    """The pictures that this result has the data for."""
    return tuple(picture for picture in PICTURES if picture.applies(result))
