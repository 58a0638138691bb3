"""What adapters take for a session."""

import os

from ctuq.design.session.session import Session


def in_degrees(session: Session | str | os.PathLike) -> Session:
    """A session whose angles are the scanner's degrees, from one of either kind or from its file."""
    if isinstance(session, Session):
        return session if session.degrees else Session(session.path, degrees=True)
    return Session(session, degrees=True)
