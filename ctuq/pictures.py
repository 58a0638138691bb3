"""Small pictures and tables of what an object holds, for notebooks; matplotlib is imported when the first one is drawn."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from ctuq.text import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Panel(NamedTuple):
    """An image (y, x), its colours, edges (left, right, bottom, top), and the names of its axes and its values."""

    image: NDArray
    colours: str
    extent: tuple[float, float, float, float]
    axes: tuple[str, str]
    values: str


def figure_of(panels: Mapping[str, Panel]) -> "Figure":
    """Panels beside one another, each with its colour bar; never by pyplot, so that nothing is shown or kept unasked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * len(panels), 3.7), layout="constrained")
    for axes, (title, panel) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        place: dict[str, Any] = {"extent": panel.extent, "origin": "upper", "interpolation": "nearest", "aspect": "auto"}
        shown = axes.imshow(panel.image, cmap=panel.colours, **place)
        if panel.axes == ("x (mm)", "y (mm)"):
            axes.set_aspect("equal")
        axes.set(title=title, xlabel=panel.axes[0], ylabel=panel.axes[1])
        figure.colorbar(shown, ax=axes, label=panel.values)
    return figure


def figure_of_line(positions: NDArray, values: NDArray, band: NDArray, unit: str, level: float) -> "Figure":
    """Values along a line in mm with the band (2, n) that their intervals make."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.7), layout="constrained")
    axes = figure.add_subplot()
    axes.fill_between(positions, *band, alpha=0.3, linewidth=0, label=f"{100 * level:g} % interval of each point")
    axes.plot(positions, values, linewidth=1.5, label="value")
    axes.set(xlabel="along the line (mm)", ylabel=f"attenuation ({unit})")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def png_bytes(figure: "Figure", dpi: int = 110) -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def as_html(title: str, rows: Sequence[tuple[str, str]], figure: "Figure") -> str:
    """A table of names and phrases with a picture under it, for ``_repr_html_``."""
    cells = "".join(
        f"<tr style='text-align:left'><th>{html.escape(name)}</th><td>{html.escape(visible(text))}</td></tr>"
        for name, text in rows
    )
    picture = base64.b64encode(png_bytes(figure, 72)).decode("ascii")
    alt = html.escape("; ".join(f"{name}: {visible(text)}" for name, text in rows))
    return f"<b>{html.escape(title)}</b><table>{cells}</table><img alt='{alt}' src='data:image/png;base64,{picture}'>"


def in_words(kind: str, rows: Sequence[tuple[str, str]]) -> str:
    """One line, for ``repr``."""
    return f"<{kind}: {'; '.join(visible(text) for _, text in rows)}>"
