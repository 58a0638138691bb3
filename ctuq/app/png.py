"""Figures as PNG files."""

from ctuq.pictures import png_bytes

__all__ = ["png_bytes"]
