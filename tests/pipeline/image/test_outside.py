"""Objects that reach beyond the detector."""

from dataclasses import replace

import numpy as np
import pytest

from ctuq.app.report.systematics import errors_told
from ctuq.errors import InputError
from ctuq.pipeline import ReconstructOptions, reconstruct
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.tomo import radians, ray_transform
from ctuq.tomo.simulate import phantom_scan
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.unseen_views import predict_views

DIP = DIPOptions(network=UNetOptions(channels=(8, 8), skips=(4,)), iterations=80, check_every=20)


def cut(size=24):
    whole = phantom_scan("ellipses", size, radians(np.arange(0, 180, 12.0)), noise=0.01, seed=1)
    first = (whole.geometry.columns - 12) // 2
    geometry = replace(whole.geometry, columns=12)
    part = whole.projections[:, first : first + 12].copy()
    return whole, replace(whole, projections=part, geometry=geometry, truth=None, grid=None)


def options(systematics, **others):
    return ReconstructOptions(size=12, samples=64, dip=DIP, systematics=systematics, device="cpu", **others)


@pytest.fixture(scope="module")
def results():
    _, scan = cut()
    return {text: reconstruct(scan, options=options(text, field="common")) for text in ("default", "hardening,axis,gain")}


def test_what_lies_outside_makes_the_error_bars_longer_at_the_rim(results):
    found, without = results["default"], results["hardening,axis,gain"]
    told = found.systematics["truncation"]
    assert told.of == "cell" and told.unit == "1/mm" and len(told.values) == len(told.std) > 8 and not told.hidden
    assert "truncation" not in without.systematics
    y, x = np.mgrid[:12, :12] - 5.5
    rim = (np.hypot(x, y) > 4.5) & (np.hypot(x, y) < 6)
    longer = (found.std_raw / without.std_raw)[rim].mean()
    assert longer > 1.05
    assert any("lies outside" in text and "cell" in text for text in errors_told(found))


def test_results_keep_it_and_foretell_rays_of_what_lies_inside(results, tmp_path):
    found = results["default"]
    found.save(tmp_path / "r.h5")
    again = Result.load(tmp_path / "r.h5")
    np.testing.assert_array_equal(again.systematics["truncation"].values, found.systematics["truncation"].values)
    A = ray_transform(again.grid, again.scan.geometry, backend="matrix")
    mean, variance = predict_views(again, A)
    assert np.isfinite(mean).all() and (variance > 0).all()


def test_an_object_that_is_seen_whole_has_none(results):
    whole, _ = cut()
    with pytest.raises(InputError, match="reach beyond the image"):
        reconstruct(whole, options=options("truncation"))
    assert "truncation" not in reconstruct(whole, options=options("default")).systematics
