"""Versions of ctuq and of the libraries that it stands on."""

from importlib.metadata import PackageNotFoundError, version


def version_of(name: str) -> str | None:
    """The installed version of a distribution; None if it is not installed, or runs from its source."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def versions_of(*names: str) -> dict[str, str]:
    """Versions by name, for a record of how something was made; "not installed" where there is none."""
    return {name: version_of(name) or "not installed" for name in names}
