"""Draw ``docs/conventions.png`` from the geometry classes themselves: ``python docs/conventions.py``."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ctuq import FanBeam, VolumeGrid, radians
from ctuq.tomo.coverage import detector_columns

SOURCE, DETECTOR, OBJECT, INK = "#c2410c", "#1d4ed8", "#047857", "#111827"
GRID = VolumeGrid((4, 5), 8.0)
POINT = np.array([12.0, 8.0])
ARROW = dict(arrowstyle="-|>", lw=1.4)


def fan(degrees: float, detector_offset: float = 0.0, axis_offset: float = 0.0) -> FanBeam:
    """One view of a small fan beam scanner."""
    return FanBeam(
        angles=radians([degrees]),
        columns=9,
        pixel=14.0,
        source_to_axis=70.0,
        source_to_detector=130.0,
        detector_offset=detector_offset,
        axis_offset=axis_offset,
    )


def draw_scanner(axes: Axes, geometry: FanBeam, title: str) -> None:
    """Source, detector with numbered columns, the image grid, and the shadow of one point."""
    row = geometry.vectors()[0]
    source, centre, step = row[0:2], row[3:5], row[6:8]
    middle = (geometry.columns - 1) / 2
    ends = [centre + (edge - middle) * step for edge in (-0.5, geometry.columns - 0.5)]
    axes.plot(*np.stack(ends).T, color=DETECTOR, lw=3, solid_capstyle="butt")
    outward = (centre - source) / np.linalg.norm(centre - source)
    for column in range(geometry.columns):
        place = centre + (column - middle) * step
        axes.plot(*place, ".", color=DETECTOR, ms=5)
        axes.text(*(place + 9 * outward), str(column), color=DETECTOR, ha="center", va="center", fontsize=8)
    axes.plot(*source, "o", color=SOURCE, ms=8)
    for end in ends:
        axes.plot(*np.stack([source, end]).T, color=SOURCE, lw=0.7, alpha=0.6)
    shadow = centre + (detector_columns(geometry, POINT[None])[0, 0] - middle) * step
    axes.plot(*np.stack([source, shadow]).T, color=OBJECT, lw=1.2)
    axes.plot(*POINT, "o", color=OBJECT, ms=6)
    axes.plot(*shadow, "s", color=OBJECT, ms=6)
    left, right, bottom, top = GRID.extent
    axes.plot([left, right, right, left, left], [bottom, bottom, top, top, bottom], color=INK, lw=1)
    for name, end in (("x", (38, 0)), ("y", (0, 38))):
        axes.annotate("", end, (0, 0), arrowprops=ARROW)
        axes.text(end[0] + 5 * (name == "x"), end[1] + 5 * (name == "y"), name, ha="center", va="center")
    axes.set(aspect="equal", xlim=(-112, 112), ylim=(-96, 104), title=title)
    axes.set_axis_off()


def label(axes: Axes, text: str, place, colour: str = INK, **keywords) -> None:
    """A short text at a place in mm."""
    axes.text(*place, text, color=colour, fontsize=8.5, **{"ha": "left", "va": "center", **keywords})


def draw_first(axes: Axes) -> None:
    """Angle 0 without offsets."""
    draw_scanner(axes, fan(0), "angle 0: rays along +y, columns along +x")
    label(axes, "source", (8, -70), SOURCE)
    for x, end, text in ((-62, 0, "source\nto axis"), (-80, 60, "source to\ndetector")):
        axes.annotate("", (x, end), (x, -70), arrowprops=dict(arrowstyle="<->", lw=0.8, color=SOURCE, shrinkA=0, shrinkB=0))
        axes.plot([x, 0], [end, end], color=SOURCE, lw=0.5, ls=":")
        label(
            axes, text, (x + 2 if end == 0 else x - 2, -45), SOURCE, ha="left" if end == 0 else "right", backgroundcolor="white"
        )
    axes.plot([-80, 0], [-70, -70], color=SOURCE, lw=0.5, ls=":")
    label(axes, "column index", (0, 88), DETECTOR, ha="center")
    label(axes, "point P", (17, 6), OBJECT)
    label(axes, "shadow of P", (36, 50), OBJECT)
    label(axes, "rotation axis\n= origin", (48, -28))
    axes.plot([0, 47], [0, -26], color=INK, lw=0.5)


def draw_turned(axes: Axes) -> None:
    """The same, turned counter-clockwise."""
    draw_scanner(axes, fan(35), "angle 35°: source and detector turn\ncounter-clockwise, the object stays")
    turn = radians(np.linspace(-90, -55, 30))
    axes.plot(70 * np.cos(turn), 70 * np.sin(turn), color=SOURCE, lw=1, ls="--")
    axes.annotate(
        "",
        (70 * np.cos(turn[-1]), 70 * np.sin(turn[-1])),
        (70 * np.cos(turn[-4]), 70 * np.sin(turn[-4])),
        arrowprops={**ARROW, "color": SOURCE},
    )
    axes.plot([0, 0], [0, -70], color=SOURCE, lw=0.6, ls=":")
    label(axes, "35°", (12, -58), SOURCE)


def draw_offsets(axes: Axes) -> None:
    """A shifted detector and a shifted axis."""
    geometry = fan(0, detector_offset=20.0, axis_offset=14.0)
    draw_scanner(axes, geometry, "detector_offset = +20 mm, axis_offset = +14 mm")
    axes.plot([-14, -14], [-70, 60], color=SOURCE, lw=0.8, ls=":")
    axes.annotate("", (0, -48), (-14, -48), arrowprops={**ARROW, "color": INK, "shrinkA": 0, "shrinkB": 0})
    label(axes, "axis_offset: from the central\nline to the axis, at the axis", (4, -50))
    axes.plot([0, 0], [0, -52], color=INK, lw=0.6, ls=":")
    axes.annotate("", (6, 52), (-14, 52), arrowprops={**ARROW, "color": DETECTOR, "shrinkA": 0, "shrinkB": 0})
    label(axes, "detector_offset:\ncentral line to\ndetector's centre", (-62, 42), DETECTOR, ha="center")


def draw_image(axes: Axes) -> None:
    """Rows, columns and mm of an image array."""
    left, right, bottom, top = GRID.extent
    rows, columns = GRID.shape
    for row in range(rows):
        for column in range(columns):
            place = (left + (column + 0.5) * GRID.voxel, top - (row + 0.5) * GRID.voxel)
            axes.text(*place, f"[{row}, {column}]", ha="center", va="center", fontsize=8)
    axes.hlines(np.linspace(bottom, top, rows + 1), left, right, color=INK, lw=0.8)
    axes.vlines(np.linspace(left, right, columns + 1), bottom, top, color=INK, lw=0.8)
    axes.plot(0, 0, "+", color=SOURCE, ms=14, mew=2)
    axes.set(xlabel="x (mm)", ylabel="y (mm)", aspect="equal", title="image[row, column]: row 0 is at the largest y")


def main() -> None:
    """Draw all four panels."""
    figure = Figure(figsize=(11, 9.6), layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    for draw, axes in zip((draw_first, draw_turned, draw_offsets, draw_image), panels, strict=True):
        draw(axes)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=90)


if __name__ == "__main__":
    main()
