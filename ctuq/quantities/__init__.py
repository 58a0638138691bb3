"""Quantities of an image with intervals: regions in mm, means, contrasts, profiles, and functions of draws."""

from ctuq.quantities.quantity import Quantity
from ctuq.quantities.regions import Circle, Polygon, Rectangle
from ctuq.quantities.solids import Box, Cylinder, Sphere

__all__ = ["Box", "Circle", "Cylinder", "Polygon", "Quantity", "Rectangle", "Sphere"]
