import itertools

import numpy as np
import pytest

import ctuq
from ctuq import pipeline
from ctuq.app.cli import main
from ctuq.errors import InputError
from ctuq.linops.jacobian.cost import ProductCost
from ctuq.linops.jacobian.network import Jacobian, ProductChoice
from ctuq.pipeline.image import rehearsal
from ctuq.pipeline.image.freed import iterations_again
from ctuq.pipeline.running.plan import Speeds, priced, with_refit
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.tomo.phantoms import rectangles
from ctuq.tomo.simulate import RelativeNoise, simulate
from ctuq.uncertainty.model.route import route

SMALL = DIPOptions(network=UNetOptions(channels=(4, 4), skips=(2,)), iterations=4, check_every=2)


def speeds_of(size):
    pixels = (size / 128) ** 2
    return Speeds(2e-1 * pixels, ProductCost(ProductChoice(), 3e-2 * pixels, 6e-2 * pixels, 5e-2 * pixels, 10**6), 1e-4, 3e-11)


SPEEDS = speeds_of(32)


@pytest.fixture(scope="module")
def scan():
    rng = np.random.default_rng(0)
    geometry = ctuq.ParallelBeam(angles=ctuq.radians(np.arange(8) * 22.5), columns=60, pixel=1.0)
    return simulate(
        lambda s: rectangles(s, rng), geometry, ctuq.VolumeGrid((44, 44), 1.0), RelativeNoise(0.05), rng=rng, attenuation=0.05
    )


@pytest.mark.parametrize("size", [12, 44])
def test_products_are_as_many_as_planned(size, scan, monkeypatch):
    plan = pipeline.plan(scan, size=size, dip=SMALL)
    counts = {"jvps": 0, "vjps": 0}

    def counted(name, product):
        def count(self, rows):
            counts[name] += len(rows)
            return product(self, rows)

        return count

    from ctuq.pipeline.image import network

    monkeypatch.setattr(network, "speeds_of_fit", lambda *_: SPEEDS)
    monkeypatch.setattr(Jacobian, "_apply", counted("jvps", Jacobian._apply))
    monkeypatch.setattr(Jacobian, "_apply_transpose", counted("vjps", Jacobian._apply_transpose))
    result = ctuq.reconstruct(scan, size=size, dip=SMALL)
    # One more forward: the image of the trained weights, which the target is made of.
    assert (counts["jvps"], counts["vjps"]) == (plan.route.products[0] + 1, plan.route.products[1])
    assert (result.plan["jvps"], result.plan["vjps"]) == plan.route.products
    assert (size == 12) == (plan.route.products[0] == 0)


def test_time_rises_with_the_size_and_memory_is_bounded():
    plans = [
        priced(route(size**2, 40 * size, 36 * size, 84544), speeds_of(size), 500, fit_bytes=4096 * size**2)
        for size in (32, 64, 128, 256, 512)
    ]
    assert all(a.total < b.total for a, b in itertools.pairwise(plans))
    assert all(0.5 * 2**30 < plan.bytes < 8 * 2**30 for plan in plans)
    assert all(plan.record()["seconds"] == plan.total for plan in plans)


def test_a_standard_deviation_over_voxels_takes_no_longer_than_in_proportion_to_the_rays():
    """1,024 voxels and 240,000 rays of a real cone were told 24 minutes for what is over in seconds."""
    some, more = (priced(route(1024, rays, rays, 84544, dims=3), SPEEDS, 0, fit_bytes=0) for rays in (60_000, 240_000))
    assert some.route.exact_std and more.route.exact_std
    assert more.seconds["samples"] < 4.1 * some.seconds["samples"] < 100


@pytest.mark.parametrize("views", [30, 120, 242])
@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_every_size_has_a_route_within_the_memory_of_a_laptop(size, views):
    rays = views * size
    found = route(size**2, rays, int(0.9 * rays), 84544, memory=16 * 2**30)
    assert found.bytes < 8 * 2**30
    assert found.products[0] + found.products[1] <= 2 * 2048 + 256


def test_a_plan_can_be_asked_for_alone(scan, tmp_path, monkeypatch, capsys):
    from ctuq.files.formats.ownscan import write_scan

    path = tmp_path / "scan.h5"
    write_scan(scan, path)
    monkeypatch.chdir(tmp_path)
    assert main(["reconstruct", str(path), "--size", "16", "--plan"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("Plan: 256 pixels")
    assert "GiB" in told
    assert [p.name for p in tmp_path.iterdir()] == ["scan.h5"]
    assert main(["reconstruct", str(path), "--method", "fbp", "--plan"]) == 2


@pytest.mark.parametrize("flag", [[], ["--quiet"]])
def test_a_plan_is_told_in_any_case_where_it_alone_was_asked_for(flag, scan, tmp_path, monkeypatch, capsys):
    from ctuq.files.formats.ownscan import write_scan

    write_scan(scan, tmp_path / "scan.h5")
    monkeypatch.chdir(tmp_path)
    assert main(["reconstruct", "scan.h5", "--size", "12", "--plan", *flag]) == 0
    assert capsys.readouterr().out.startswith("Plan: 144 pixels")


def test_a_large_image_is_planned_by_a_smaller_one_and_its_own_rays(scan, monkeypatch):
    tried = []
    monkeypatch.setattr(rehearsal, "_LARGEST", 16)
    monkeypatch.setattr(rehearsal, "speeds_of_fit", lambda fit, *_: tried.append(fit.A.domain.shape) or SPEEDS)
    monkeypatch.setattr(rehearsal, "seconds_of_rays", lambda A: tried.append(A.domain.shape) or 7.0)
    monkeypatch.setattr(rehearsal, "seconds_of_gains", lambda data: 3.0)
    plans = [pipeline.plan(scan, size=size, dip=SMALL) for size in (16, 32)]
    assert tried == [(16, 16), (16, 16), (32, 32)]
    assert plans[1].route.pixels == 32**2 and plans[1].route.rays == 8 * 60
    assert plans[1].seconds["dip"] == pytest.approx(4 * plans[0].seconds["dip"])
    assert (plans[0].seconds["gains"], plans[1].seconds["gains"]) == (3.0, 12.0)
    made = priced(plans[1].route, rehearsal.Speeds(4 * SPEEDS.iteration, SPEEDS.products, 7.0, SPEEDS.flop), 0, fit_bytes=0)
    assert plans[1].seconds["samples"] == made.seconds["samples"]


def test_rays_of_a_large_image_are_timed_by_some_of_the_views_where_they_are_many(scan, monkeypatch):
    monkeypatch.setattr(rehearsal, "_LARGEST", 16)
    monkeypatch.setattr(rehearsal, "_ENTRIES", 8 * 60 * 32 // 3)
    views = []
    monkeypatch.setattr(rehearsal, "seconds_of_rays", lambda A: views.append(A.range.shape[0]) or 7.0)
    assert pipeline.plan(scan, size=32, dip=SMALL, systematics="none").total > 0
    assert views == [3]


def test_what_a_further_fit_takes_is_told_where_there_may_be_one(scan):
    first, none, asked = (
        pipeline.plan(scan, size=16, dip=SMALL, systematics=text) for text in ("default", "none", "flux,jitter,gain,scatter")
    )
    assert (first.again_for, none.again_for, asked.again_for) == (("axis",), (), ("flux", "jitter"))
    assert str(first).endswith(" more for each further fit, of one to 3, if axis is found wrong.")
    assert "if flux or jitter is found wrong" in str(asked) and "further fit" not in str(none)
    record = first.record()
    assert record["again for"] == "axis" and record["seconds again"] == sum(first.again.values()) > 0
    assert "seconds again" not in none.record()
    # Gains are told before the fit, by default and by their name.
    assert first.seconds["gains"] > 0 and asked.seconds["gains"] > 0 and "gains" not in none.seconds


def test_a_further_fit_takes_its_iterations_the_products_again_and_the_evidence():
    plain = priced(route(1024, 1600, 1400, 84544), SPEEDS, 550, fit_bytes=0)
    plan = with_refit(plain, SPEEDS, 300, ("axis",))
    assert plan.again["dip"] == pytest.approx(plain.seconds["dip"] * 300 / 550)
    assert plan.again["jacobian"] == plain.seconds["jacobian"]
    solved = plan.seconds["evidence"] - plain.seconds["evidence"]
    # Of the first evidence it leaves out what is made once, at the last fit: views are foretold from all others.
    assert 0 < solved < plan.again["evidence"] < plan.seconds["evidence"]
    assert with_refit(plain, SPEEDS, 300, ()) is plain


def test_a_fit_that_goes_on_is_as_long_as_planned():
    assert iterations_again(DIPOptions()) == 300 and iterations_again(SMALL) == 4


def test_only_error_bars_have_a_plan(scan):
    with pytest.raises(InputError, match="error bars"):
        pipeline.plan(scan, uncertainty=False)
