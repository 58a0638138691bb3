"""Figures as PNG files."""

from collections.abc import Callable

from matplotlib import style
from matplotlib.figure import Figure

from ctuq.pictures import png_bytes

__all__ = ["drawn", "png_bytes"]


def drawn(draw: Callable[..., Figure], *told: object, dpi: int = 110) -> bytes:
    """A figure as the bytes of a PNG file, in matplotlib's own style: LaTeX or row 0 at the bottom are for its user's own."""
    with style.context("default"):
        return png_bytes(draw(*told), dpi)
