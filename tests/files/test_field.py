"""Scans as people bring them: what is right becomes an image, what is not is refused or told."""

import pytest

from experiments.field.judged import outcome_of
from experiments.field.kinds import KINDS


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_a_kind_of_scan_is_right_or_refused_or_told(kind, tmp_path):
    outcome = outcome_of(kind, tmp_path)
    assert outcome.is_right(kind), outcome.words()
