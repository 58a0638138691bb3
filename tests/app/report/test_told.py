"""Sentences of systematic errors."""

from types import SimpleNamespace

import numpy as np

from ctuq.app.report.systematics import errors_told
from ctuq.uncertainty.results.contents import Systematic


def test_flux_that_is_halved_is_told_as_half():
    """Rays have the logarithm, -69 %, which nobody takes for half."""
    values, std = np.array([0.1, -69.3]), np.array([0.2, 0.2])
    given = dict(unit="%", of="view", std=std, width=30.0, learned=True, hidden=False, share=0.0, samples=np.zeros((0, 2)))

    def told(factor):
        (text,) = errors_told(SimpleNamespace(systematics={"flux": Systematic(values=factor * values, **given)}))  # pyright: ignore
        return text

    assert "view 1 (from 0) with -69.30 ± 0.2 % of the logarithm (0.5 times)." in told(1.0)
    assert "with -6.93 ± 0.2 %." in told(0.1)


def test_a_hint_is_told_to_be_none_the_surer_for_its_interval():
    """A source 6 mm nearer than it was taken to be came out at 0.3 +- 0.7 mm, which was told as not significant."""
    given = dict(unit="mm", of="scan", width=1.5, learned=False, hidden=False, share=0.0, samples=np.zeros((0, 1)))
    found = Systematic(values=np.array([0.25]), std=np.array([0.71]), **given)
    (text,) = errors_told(SimpleNamespace(systematics={"distance": found}))  # pyright: ignore
    assert "0.25 ± 0.71 mm" in text and "hint" in text and "significant" not in text
    (axis,) = errors_told(SimpleNamespace(systematics={"axis": found}))  # pyright: ignore
    assert "not significant" in axis
