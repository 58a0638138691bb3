"""Where a scan's rotation axis is taken: where a file says so, else where a search of all its parts finds it."""

from collections.abc import Sequence

from ctuq.files.formats.raw import AXIS, OTHER, START, Raw
from ctuq.tomo.axis import better_axis, searched_axis
from ctuq.tomo.scan import Scan


def wants_search(raw: Raw) -> bool:
    """Whether the rotation axis is to be searched: where somebody says so, or of raw data where nobody says where it is."""
    return raw.whole is None and (
        raw.fields.get("axis_column") == "search" or OTHER in raw.fields or (not _told(raw) and raw.kind_of_values != "log")
    )


def placed_axis(raws: Sequence[Raw], scan: Scan) -> tuple[float, str]:
    """The column of the rotation axis of a scan of several parts, one of which wants a search, and a sentence for the user."""
    for raw in raws:
        first, other = raw.fields.get("axis_column"), raw.fields.get(OTHER)
        if isinstance(first, int | float) and isinstance(other, int | float):
            return better_axis(scan, (first, other))
    kept = any(key in raw.fields for raw in raws for key in (START, "axis_offset", "detector_offset"))
    return searched_axis(scan, "the file's value" if kept else "the detector's middle")


def unsaid_axis(raws: Sequence[Raw]) -> tuple[str, ...]:
    """A warning where nobody says where the axis is, and it is taken at the detector's middle without a search."""
    if all(raw.whole is not None or _told(raw) for raw in raws):
        return ()
    return ("The rotation axis is taken at the detector's middle, as nothing says where it is; give axis_column (or search).",)


def _told(raw: Raw) -> bool:
    return any(key in raw.fields for key in AXIS)
