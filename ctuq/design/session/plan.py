"""What a session knows without computing: its next angles, worked out ahead, and whether its model is due to be learned."""

from dataclasses import replace

from ctuq.design.session.file import Learnt, Record, marks_of
from ctuq.design.state import Decision, DesignState, Suggestion
from ctuq.errors import BudgetExhausted, InputError

ANEW = ("edges", "displaced", "lindip+edges")
"""Priors that are made anew about the reconstruction after every view."""


def take_planned(record: Record, n: int | None = None) -> tuple[Suggestion, Record] | None:
    """The next angles, if they were worked out when the session came to its state; and the session with them in its log.

    Parameters
    ----------
    record : Record
    n : int, optional
        How many; the session's batch, or all pilot views that are missing, by default.

    Returns
    -------
    tuple, or None if they have to be worked out

    Raises
    ------
    BudgetExhausted
        If there is no dose left.
    InputError
        If there is none to suggest for another reason.
    """
    if record.refusal:
        raise (BudgetExhausted if record.exhausted else InputError)(record.refusal)
    plan = record.plan
    if plan is None:
        return None
    pilot, ready = in_pilot(record), len(plan.angles)
    # Fewer than a batch were found only where there are no more.
    if n is not None and n > ready and not pilot and ready == record.settings.batch:
        return None
    count = ready if n is None else min(n, ready)
    suggestion = plan.first(count)
    return suggestion, noted(record, suggestion)


def noted(record: Record, suggestion: Suggestion) -> Record:
    """The session with a suggestion in its log."""
    kind = "pilot" if in_pilot(record) else "ask"
    s, spent = suggestion, record.state.spent
    entry = Decision(kind, s.angles, s.scores, s.gains, s.error, spent, stop=s.stop, reason=s.reason)
    return replace(record, state=record.state.logged(entry))


def in_pilot(record: Record) -> bool:
    """Whether pilot views are still missing."""
    return len(record.state.views) < record.settings.pilot


def learning_due(record: Record) -> str:
    """Why the model should be learned (again) now, in a few words; "" if it should not."""
    learnt, settings = record.learnt, record.settings
    if in_pilot(record):
        return ""
    if learnt is None:
        return "the pilot views are complete"
    if not covers(record.state, learnt):
        return "projections that it was learned from were rejected"
    if network_due(record):
        return f"{len(record.state.views) - len(learnt.views)} views are new"
    if settings.prior in ANEW and len(record.state.views) > len(learnt.views):
        return "the edges are sharper with every view"
    return ""


def network_due(record: Record) -> bool:
    """Whether as many new views have come as the settings wait for, or some that were learned from are gone."""
    learnt, settings = record.learnt, record.settings
    if learnt is None or not covers(record.state, learnt):
        return True
    known = learnt.network_views if learnt.network is not None else learnt.views
    return settings.retrain_every > 0 and len(record.state.views) - len(known) >= settings.retrain_every


def covers(state: DesignState, learnt: Learnt) -> bool:
    """Whether all that a model was learned from is among the measured views, unchanged."""
    known = dict(zip(state.views.tolist(), marks_of(state), strict=True))
    return all(known.get(view) == mark for view, mark in zip(learnt.views.tolist(), learnt.marks, strict=True))
