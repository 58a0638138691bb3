from dataclasses import replace

import numpy as np
import pytest
import torch

from ctuq.errors import InputError
from ctuq.recon import schedule
from ctuq.recon import start as module
from ctuq.recon.dip import Data, DIPOptions, dip, generator
from ctuq.recon.educated import educated_weights, save_educated
from ctuq.recon.fbp import fbp
from ctuq.recon.start import first_image, random_weights
from ctuq.recon.unet import UNet, UNetOptions
from ctuq.tomo import ParallelBeam, VolumeGrid, radians, ray_transform

SMALL = UNetOptions(channels=(4, 4), skips=(2,))


def scanned(degrees, size=24):
    """A disc with a hole over an arc; its fitted and held-out views, and the truth."""
    grid = VolumeGrid((size, size), 1.0)
    geometry = ParallelBeam(angles=radians(np.linspace(0, degrees, 14)), columns=int(1.45 * size), pixel=1.0)
    A = ray_transform(grid, geometry, backend="matrix")
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    truth = 0.05 * ((torch.hypot(line[None], line[:, None]) < 0.8) & (torch.hypot(line[None] - 0.3, line[:, None]) > 0.2))
    y = A(truth)
    held, seen = [4, 9], [i for i in range(14) if i not in (4, 9)]
    return [Data(A.subset(np.array(v)), y[v][None], torch.ones(1, len(v), geometry.columns)) for v in (seen, held)], truth


@pytest.mark.parametrize("degrees", [30, 60, 120, 174])
def test_a_missing_wedge_hardly_lowers_the_scale(degrees):
    (fit, _), _ = scanned(degrees)
    inputs, scale = first_image(fit.A, fit.y, fit.weights)
    assert 0.6 < float(scale) / (1.5 * 0.05) < 1.1
    fades = fbp(fit.A, fit.y).clamp(min=0)
    misfits = [float(fit.misfit(x) / fit.size) for x in (fades, scale[:, None, None] * inputs)]
    assert misfits[1] < 0.3 * misfits[0]


def test_nothing_gives_no_scale_and_no_division():
    (fit, _), _ = scanned(174)
    inputs, scale = first_image(fit.A, torch.zeros_like(fit.y), fit.weights)
    assert float(scale) == 0 and not bool(inputs.any())
    for y, weights in ((0 * fit.y, fit.weights), (-fit.y, fit.weights), (fit.y, 0 * fit.weights)):
        with pytest.raises(InputError, match="no object"):
            generator(Data(fit.A, y, weights), DIPOptions(), rng=torch.Generator())


def test_shipped_weights_are_those_of_the_default_network():
    weights = educated_weights()
    network = UNet(UNetOptions(), torch.Generator().manual_seed(0))
    assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in network.state_dict().items()}
    assert sum(v.numel() for v in weights.values()) == 84_869
    assert all(v.dtype == torch.float32 and bool(v.isfinite().all()) for v in weights.values())


def test_weights_are_kept_to_half_precision(tmp_path):
    weights = {"a.weight": torch.randn(3, 2, generator=torch.Generator().manual_seed(0))}
    save_educated(weights, tmp_path / "weights.npz")
    with np.load(tmp_path / "weights.npz") as stored:
        np.testing.assert_allclose(stored["a.weight"], weights["a.weight"], rtol=1e-3)


def test_educated_start_already_shows_the_object():
    (fit, held), _ = scanned(174)
    generate, weights = generator(fit, DIPOptions(), rng=torch.Generator().manual_seed(0))
    assert float(held.misfit(generate(weights)) / held.size) < 0.05
    drawn = generator(fit, DIPOptions(start="random"), rng=torch.Generator().manual_seed(0))[1]
    assert not torch.equal(drawn["out.weight"], weights["out.weight"])


def test_educated_start_is_as_good_in_far_fewer_iterations():
    (fit, held), _ = scanned(174)
    found = {}
    for start, iterations in (("educated", 100), ("random", 300)):
        options = DIPOptions(start=start, iterations=iterations, patience=1.0)
        generate, weights = generator(fit, options, rng=torch.Generator().manual_seed(0))
        *_, state = dip(generate, weights, fit, held, options)
        found[start] = float(state.best_misfit)
    assert found["educated"] < found["random"]


@pytest.mark.parametrize("options", [DIPOptions(network=SMALL), DIPOptions(start="random")])
def test_other_networks_start_at_random(options, caplog):
    (fit, _), _ = scanned(174)
    assert not options.educated and options.length == 1500 and options.rate == 1e-2
    with caplog.at_level("INFO"):
        weights = [generator(fit, options, rng=torch.Generator().manual_seed(s))[1]["out.weight"] for s in (0, 1)]
    assert not torch.equal(*weights)
    assert ("default network" in caplog.text) == (options.start == "educated")


def test_start_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="'educated'"):
        DIPOptions(start="clever")


def test_missing_weights_start_at_random(monkeypatch):
    monkeypatch.setattr(module, "educated_weights", lambda dims: None)
    (fit, _), _ = scanned(174)
    generate, weights = generator(fit, DIPOptions(), rng=torch.Generator().manual_seed(0))
    assert float(generate(weights).std()) < 0.2 * float(generate(weights).mean())


@pytest.mark.parametrize("level", [0.5, 1.0])
def test_random_weights_begin_flat_at_the_level_asked_for(level):
    (fit, _), truth = scanned(174)
    options = DIPOptions(start="random")
    generate, _ = generator(fit, options, rng=torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    image = generate(random_weights(generate, fit, options.network, rng=rng, level=level))
    assert float(image.mean()) == pytest.approx(level * float(truth.mean()), rel=0.4)


def test_rate_stays_up_while_it_helps_and_then_falls(monkeypatch):
    monkeypatch.setattr(schedule, "_LONG", 10)
    monkeypatch.setattr(schedule, "_WARM", 10)
    monkeypatch.setattr(schedule, "_FALL", 15)
    (fit, held), _ = scanned(174)
    options = DIPOptions(check_every=5)
    generate, weights = generator(fit, options, rng=torch.Generator().manual_seed(0))
    states = list(dip(generate, weights, fit, held, options))
    last = states[-1]
    unseen = last.history[:, 2].cummin(0).values
    gains = [float(unseen[i] / unseen[i - 2]) for i in range(3, len(unseen))]
    stalled = next(i for i, gain in enumerate(gains, 3) if gain > schedule._STALL)
    assert last.falls_from == int(last.history[stalled, 0])
    assert last.iteration == last.falls_from + 15
    rates = [schedule.share_of_rate(i, last, options) for i in (last.falls_from, last.falls_from + 8, last.iteration)]
    assert rates[0] > rates[1] > rates[2] == pytest.approx(0.01)


def test_fit_that_never_stalls_ends(monkeypatch):
    monkeypatch.setattr(schedule, "_stalled", lambda state, held_out: False)
    monkeypatch.setattr(schedule, "_FALL", 15)
    monkeypatch.setattr(module, "_EDUCATED", (40, 5e-3))
    (fit, held), _ = scanned(174)
    options = replace(DIPOptions(), check_every=5)
    generate, weights = generator(fit, options, rng=torch.Generator().manual_seed(0))
    *_, last = dip(generate, weights, fit, held, options)
    assert (last.falls_from, last.iteration) == (25, 40)


def test_a_fit_goes_on_while_another_method_s_image_is_clearly_better(monkeypatch):
    for name in ("_WARM", "_LONG"):
        monkeypatch.setattr(schedule, name, 5)
    monkeypatch.setattr(schedule, "_STALL", 0.0)  # as soon as looks allow
    monkeypatch.setattr(schedule, "_FALL", 15)
    monkeypatch.setattr(module, "_EDUCATED", (60, 5e-3))
    (fit, held), _ = scanned(174)
    options = replace(DIPOptions(), check_every=5)
    ends = {}
    for beside in (float("inf"), 1e-12):
        generate, weights = generator(fit, options, rng=torch.Generator().manual_seed(0))
        *_, last = dip(generate, weights, fit, replace(held, beside=beside), options)
        ends[beside] = (last.falls_from, last.iteration)
    assert ends[float("inf")][1] < 60 and ends[1e-12] == (45, 60)


@pytest.mark.parametrize(
    "setting",
    [
        {"iterations": 0},
        {"iterations": 2.5},
        {"check_every": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"total_variation": -1.0},
        {"average": 1.0},
        {"patience": 0.0},
    ],
)
def test_settings_that_fit_nothing_are_refused(setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        DIPOptions(**setting)
