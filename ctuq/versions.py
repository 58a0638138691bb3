"""Versions of ctuq and of the libraries that it stands on."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def version_of(name: str) -> str | None:
    """The installed version of a distribution; None if it is not installed, or runs from its source.

    Kept: to look seven up again was 25 ms of every write of a session.
    """
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def versions_of(*names: str) -> dict[str, str]:
    """Versions by name, for a record of how something was made; "not installed" where there is none."""
    return {name: version_of(name) or "not installed" for name in names}
