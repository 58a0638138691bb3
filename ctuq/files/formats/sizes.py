"""Values that a file declares beside the bytes that it has for them."""

from ctuq.errors import InputError

_HARMLESS, _RATIO = 1 << 28, 250


def refuse_bomb(declared: int, stored: int, what: str) -> None:
    """Refuse what would unfold to far more than any measurement can be compressed by.

    Projections have noise, and are compressed by ten at most. More than 250 times as many bytes as are stored, and more than
    256 MiB, are values that nobody wrote, or a trap.

    Parameters
    ----------
    declared, stored : int
        Bytes.
    what : str
        Subject of the sentence.

    Raises
    ------
    InputError
        If that is so.
    """
    if declared > _HARMLESS and declared > _RATIO * max(stored, 1):
        gib = declared / 2**30
        raise InputError(
            f"{what} declares {gib:.3g} GiB and stores {stored} bytes: nothing was measured, or it is a trap; copy it again."
        )
