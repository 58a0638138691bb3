"""Reading and writing scans."""

from ctuq.files.description import Description, describe
from ctuq.files.formats.ownscan import write_scan
from ctuq.files.reading import read
from ctuq.files.shipped import demo_scan

__all__ = ["Description", "demo_scan", "describe", "read", "write_scan"]
