import itertools

import numpy as np
import pytest

import ctuq
from ctuq import pipeline
from ctuq.app.cli import main
from ctuq.errors import InputError
from ctuq.linops.jacobian.cost import ProductCost
from ctuq.linops.jacobian.network import Jacobian, ProductChoice
from ctuq.pipeline.running.plan import Speeds, priced
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

    from ctuq.pipeline.image import job

    monkeypatch.setattr(job, "measure", lambda *_: SPEEDS)
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
    assert main(["reconstruct", str(path)]) == 2
    assert "-o FOLDER" in capsys.readouterr().err
    assert main(["reconstruct", str(path), "--method", "fbp", "--plan"]) == 2


def test_only_error_bars_have_a_plan(scan):
    with pytest.raises(InputError, match="error bars"):
        pipeline.plan(scan, uncertainty=False)
