"""Reading and writing scans."""

from typing import TYPE_CHECKING

from ctuq.late import attach

if TYPE_CHECKING:
    from ctuq.files.description import Description, describe
    from ctuq.files.formats.hdf5.nxfile import write_nxtomo
    from ctuq.files.formats.ownscan import write_scan
    from ctuq.files.formats.ownvolume import write_volume_scan
    from ctuq.files.reading import read
    from ctuq.files.shipped import demo_scan
    from ctuq.files.volumes import read_volume

__all__ = [
    "Description",
    "demo_scan",
    "describe",
    "read",
    "read_volume",
    "write_nxtomo",
    "write_scan",
    "write_volume_scan",
]

_HOMES = {
    "ctuq.files.description": ("Description", "describe"),
    "ctuq.files.formats.hdf5.nxfile": ("write_nxtomo",),
    "ctuq.files.formats.ownscan": ("write_scan",),
    "ctuq.files.formats.ownvolume": ("write_volume_scan",),
    "ctuq.files.reading": ("read",),
    "ctuq.files.shipped": ("demo_scan",),
    "ctuq.files.volumes": ("read_volume",),
}

# Imported on first use: who computes on a scan in memory does not wait for all formats, a quarter of a second.
__getattr__, __dir__ = attach(__name__, _HOMES)
