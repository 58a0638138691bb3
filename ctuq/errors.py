"""Exceptions a user meets: each carries one sentence that says what is wrong and what to do."""


class CtuqError(Exception):
    """Base of all errors that ctuq raises on purpose; the command line exits with code 2, or 4 for a `ResourceError`."""


class InputError(CtuqError, ValueError):
    """A file, an array or an option that cannot be used as it is."""


class BudgetExhausted(InputError):  # noqa: N818, it is no mistake but an end
    """The dose that was allowed for an object is spent; whoever drives a scanner by this stops there."""


class GeometryError(InputError):
    """A scanning geometry that is inconsistent or does not fit the data."""


class FitError(CtuqError):
    """A fit that ends without an image, and would again."""


class BackendError(CtuqError):
    """A library or device that was asked for is missing, or is not exact enough for the task."""


class ResourceError(CtuqError):
    """Too little memory or disk for the work that was asked for."""
