"""Sentences of systematic errors."""

from types import SimpleNamespace

import numpy as np

from ctuq.app.report.systematics import error_facts, errors_told
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


def test_errors_that_are_not_there_are_told_as_zero_within_their_interval():
    given = dict(unit="%", of="column", width=0.1, learned=True, hidden=False, share=0.0, samples=np.zeros((0, 3)))
    found = Systematic(values=np.array([0.01, -0.02, 0.0]), std=np.full(3, 0.05), **given)
    (text,) = errors_told(SimpleNamespace(systematics={"gain": found}))  # pyright: ignore
    assert "Gain of each column: zero within ± 0.098 % (95 %)" in text and "none of 3 columns" in text


def test_programs_are_told_each_error_with_its_interval_and_what_rays_cannot_tell():
    given = dict(learned=False, share=0.1, samples=np.zeros((0, 1)), width=1.0, unit="mm", of="scan")
    one = {"values": np.array([0.5]), "std": np.array([0.1])}
    errors = {
        "axis": Systematic(**one, **given, hidden=False, taken=one["values"]),
        "distance": Systematic(**one, **given, hidden=False),
        "hardening": Systematic(values=np.zeros(1), std=np.ones(1), hidden=True, **given),
        "flux": Systematic(values=np.array([0.3, 0.1]), std=np.full(2, 0.1), hidden=False, **{**given, "of": "view"}),
    }
    facts = error_facts(SimpleNamespace(systematics=errors))  # pyright: ignore
    np.testing.assert_allclose(facts["axis"]["interval"], [[0.5 - 0.196, 0.5 + 0.196]], atol=1e-4)
    assert facts["axis"]["told_by_rays"] and facts["axis"]["significant"].tolist() == [True]
    assert facts["axis"]["taken_out"] == one["values"] and "0.50 ± 0.1 mm" in facts["axis"]["sentence"]
    assert facts["distance"]["significant"] is None and facts["distance"]["taken_out"] is None
    assert not facts["hardening"]["told_by_rays"] and facts["hardening"]["significant"] is None
    assert facts["flux"]["significant"].tolist() == [True, False] and facts["flux"]["of"] == "view"
