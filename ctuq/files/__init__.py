"""Reading and writing scans."""

from ctuq.files.description import Description, describe, description_of
from ctuq.files.formats.hdf5.nxfile import write_nxtomo
from ctuq.files.formats.ownscan import write_scan
from ctuq.files.formats.ownvolume import write_volume_scan
from ctuq.files.reading import opened, read, scan_of
from ctuq.files.shipped import demo_scan
from ctuq.files.volumes import read_volume

__all__ = [
    "Description",
    "demo_scan",
    "describe",
    "description_of",
    "opened",
    "read",
    "read_volume",
    "scan_of",
    "write_nxtomo",
    "write_scan",
    "write_volume_scan",
]
