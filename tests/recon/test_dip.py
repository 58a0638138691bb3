import inspect
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from ctuq.errors import FitError, InputError
from ctuq.recon import dip as module
from ctuq.recon.dip import Data, DIPOptions, dip, generator
from ctuq.recon.fbp import fbp
from ctuq.recon.tv import tv
from ctuq.recon.unet import UNetOptions
from ctuq.scores.gaussian import image_scores
from ctuq.tomo import ParallelBeam, VolumeGrid, radians, ray_transform

NETWORK = UNetOptions(channels=(8, 8), skips=(4,))
OPTIONS = DIPOptions(network=NETWORK, iterations=60, check_every=10)


@pytest.fixture(scope="module")
def problem():
    """Clean projections of two rectangles, 16 x 16 pixels of 1 mm, 12 angles of which two are held out."""
    grid = VolumeGrid((16, 16), 1.0)
    A = ray_transform(grid, ParallelBeam(angles=radians(np.arange(12) * 15), columns=22, pixel=1.0), backend="matrix")
    truth = torch.zeros(16, 16)
    truth[3:12, 4:9], truth[6:10, 10:13] = 0.04, 0.07
    y = A(truth)
    held, fitted = [3, 9], [i for i in range(12) if i not in (3, 9)]
    data = [Data(A.subset(np.array(v)), y[v][None], torch.ones(1, len(v), 22)) for v in (fitted, held)]
    return truth, data[0], data[1]


def start(fit, options=OPTIONS, seed=0):
    return generator(fit, options, rng=torch.Generator().manual_seed(seed))


def run(problem, options=OPTIONS, resume=None, seed=0):
    _, fit, held = problem
    generate, weights = start(fit, options, seed)
    return generate, list(dip(generate, weights, fit, held, options, resume=resume))


def twice(data):
    return Data(data.A, torch.cat([data.y, 0.5 * data.y]), data.weights.repeat(2, 1, 1))


def assert_same(a, b, tolerance=0.0):
    for name in (f.name for f in fields(a)):
        left, right = getattr(a, name), getattr(b, name)
        pairs = [(left[k], right[k]) for k in left] if isinstance(left, dict) else [(left, right)]
        for x, y in pairs:
            torch.testing.assert_close(torch.as_tensor(x), torch.as_tensor(y), rtol=tolerance, atol=tolerance)


def test_fit_is_much_better_than_filtered_back_projection(problem):
    truth, fit, _ = problem
    generate, states = run(problem, replace(OPTIONS, iterations=250, check_every=25))
    image = generate(states[-1].best)[0].detach().numpy()
    score = image_scores(image, truth.numpy())["psnr"]
    assert score > image_scores(fbp(fit.A, fit.y)[0].numpy(), truth.numpy())["psnr"] + 6


def test_no_ground_truth_can_reach_the_fit():
    for function in (dip, generator):
        assert not {"truth", "target"} & set(inspect.signature(function).parameters)
    assert {f.name for f in fields(Data)} == {"A", "y", "weights", "own", "beside"}


def test_misfit_is_the_weighted_mean_square(problem, rng):
    _, fit, _ = problem
    weights = torch.rand(fit.y.shape, generator=rng)
    x = torch.rand(1, 16, 16, generator=rng)
    expected = (weights * (fit.A(x) - fit.y) ** 2).sum() / weights.sum()
    torch.testing.assert_close(Data(fit.A, fit.y, weights).misfit(x), expected[None])


def test_best_weights_are_the_averages_of_smallest_held_out_misfit(problem):
    generate, states = run(problem)
    _, _, held = problem
    history = states[-1].history
    assert history[:, 0].tolist() == [10, 20, 30, 40, 50, 60]
    smallest = int(history[:, 2].argmin())
    assert int(states[-1].best_iteration) == int(history[smallest, 0])
    torch.testing.assert_close(held.misfit(generate(states[-1].best)), states[-1].best_misfit)
    torch.testing.assert_close(states[-1].best_misfit[0], history[smallest, 2])
    torch.testing.assert_close(states[-1].best["out.weight"], states[smallest].average["out.weight"])


def test_fit_stops_when_the_held_out_misfit_no_longer_improves(problem):
    _, fit, held = problem
    # Held-out rays of nothing: the flat start is the best that there is, and every step makes it worse.
    empty = Data(held.A, torch.zeros_like(held.y), held.weights)
    options = replace(OPTIONS, iterations=400, patience=0.1)
    generate, weights = start(fit, options)
    states = list(dip(generate, weights, fit, empty, options))
    best, last = int(states[-1].best_iteration), states[-1].iteration
    assert last < 400
    assert 40 < last - best <= 50


def test_resumed_fit_is_the_same_fit(problem):
    _, whole = run(problem)
    _, rest = run(problem, resume=whole[2])
    assert [s.iteration for s in rest] == [40, 50, 60]
    assert_same(rest[-1], whole[-1])


def test_a_fit_resumed_between_two_looks_is_the_same_fit_and_stops_where_it_would(problem):
    _, fit, held = problem
    # Held-out rays of nothing: the fit stops early, by its patience, at a look.
    for data, options in ((held, OPTIONS), (replace(held, y=torch.zeros_like(held.y)), replace(OPTIONS, patience=0.1))):
        generate, weights = start(fit, options)
        whole = list(dip(generate, weights, fit, data, options))
        every = list(dip(generate, weights, fit, data, options, due=lambda: True))
        assert [s.iteration for s in every] == list(range(1, whole[-1].iteration + 1))
        assert_same(every[-1], whole[-1])
        for state in every[3:-1:7]:
            assert not module.finished(state, options)
            rest = list(dip(generate, weights, fit, data, options, resume=state))
            assert [s.iteration for s in rest] == [s.iteration for s in whole if s.iteration > state.iteration]
            assert_same(rest[-1], whole[-1])


def test_fit_repeats_with_the_seed(problem):
    first, second, other = (run(problem, seed=s)[1][-1] for s in (0, 0, 1))
    assert_same(first, second)
    assert not torch.equal(first.best["out.weight"], other.best["out.weight"])


@pytest.mark.parametrize("groups", [0, 2])
def test_two_images_at_once_are_two_fits(problem, groups):
    _, fit, held = problem
    options = replace(OPTIONS, iterations=30, network=replace(NETWORK, groups=groups))
    generate, weights = start(twice(fit), options)
    both = list(dip(generate, weights, twice(fit), twice(held), options))[-1]
    images = generate(both.best)
    for i in range(2):
        one = [Data(d.A, d.y[i : i + 1], d.weights[i : i + 1]) for d in (twice(fit), twice(held))]
        alone = module.Generator(generate.network, generate.inputs[i : i + 1], generate.scale[i : i + 1])
        begin = {name: value[i : i + 1] for name, value in weights.items()}
        last = list(dip(alone, begin, *one, options))[-1]
        torch.testing.assert_close(images[i], alone(last.best)[0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(both.history[:, [1 + i, 3 + i]], last.history[:, 1:], rtol=1e-2, atol=1e-5)


def test_fit_that_diverges_is_begun_again_more_slowly_and_then_given_up(problem, monkeypatch):
    attempts = []
    descend = module._descend

    def watched(*arguments, state, **others):
        attempts.append(state.attempt)
        return descend(*arguments, state=state, **others)

    monkeypatch.setattr(module, "_descend", watched)
    with pytest.raises(FitError, match="--method tv"):
        run(problem, replace(OPTIONS, iterations=300, check_every=50, learning_rate=1e4))
    assert attempts == list(range(6))


def spoil(monkeypatch, at, change):
    """Let the first attempt's look at iteration ``at`` be spoilt; returns where each attempt began, and its rate."""
    descend, started = module._descend, []

    def spoilt(*arguments, state, **others):
        started.append((state.iteration, state.attempt, state.redrawn))
        for following, alive in descend(*arguments, state=state, **others):
            if state.attempt == 0 and following.iteration == at:
                yield change(following, alive)
            else:
                yield following, alive

    monkeypatch.setattr(module, "_descend", spoilt)
    return started


def leap(state, alive):
    state.history[-1, 1] *= 1e4
    return state, alive


def test_fit_whose_misfit_leaps_goes_back_to_its_best_weights(problem, monkeypatch):
    started = spoil(monkeypatch, 130, leap)
    _, states = run(problem, replace(OPTIONS, iterations=150, patience=1.0))
    best = started[1][0]
    assert started == [(0, 0, 0), (best, 1, 0)]
    assert 0 < best < 130
    assert [s.iteration for s in states] == [*range(10, 130, 10), *range(best + 10, 160, 10)]
    assert len(states[-1].history) == 15


def test_dead_network_is_drawn_anew(problem, monkeypatch):
    _, alive = run(problem)
    started = spoil(monkeypatch, 10, lambda state, alive: (state, torch.zeros_like(alive)))
    _, states = run(problem)
    assert started[:2] == [(0, 0, 0), (0, 1, 1)]
    assert [s.iteration for s in states] == [10, 20, 30, 40, 50, 60]
    assert not torch.equal(states[0].parameters["out.weight"], alive[0].parameters["out.weight"])


def test_saturated_network_is_seen_as_dead(problem):
    _, fit, held = problem
    options = replace(OPTIONS, network=replace(NETWORK, activation="sigmoid"))
    generate, weights = start(fit, options)
    weights["out.bias"] = torch.full_like(weights["out.bias"], 200.0)
    states = list(dip(generate, weights, fit, held, options))
    assert states[0].attempt > 0 and states[0].redrawn
    assert float(states[-1].best_misfit / held.size) < 0.2


@pytest.mark.parametrize("change", [leap, lambda state, alive: (state, torch.zeros_like(alive))])
def test_restarted_fit_is_resumed_as_the_same_fit(problem, monkeypatch, change):
    options = replace(OPTIONS, iterations=150, patience=1.0)
    spoil(monkeypatch, 110, change)
    _, whole = run(problem, options)
    middle = next(s for s in whole if s.attempt)
    _, rest = run(problem, options, resume=middle)
    assert_same(rest[-1], whole[-1])


def test_fit_that_diverges_late_again_and_again_keeps_its_best_weights(problem, monkeypatch):
    descend = module._descend

    def spoilt(*arguments, state, **others):
        for following, alive in descend(*arguments, state=state, **others):
            yield leap(following, alive) if following.iteration == 130 else (following, alive)

    monkeypatch.setattr(module, "_descend", spoilt)
    _, _, held = problem
    _, states = run(problem, replace(OPTIONS, iterations=150, patience=1.0))
    assert float(states[-1].best_misfit / held.size) < 0.1


def test_rays_of_no_weight_do_not_matter(problem):
    _, fit, held = problem
    weights = fit.weights.clone()
    weights[0, 2] = 0
    spoiled = fit.y.clone()
    spoiled[0, 2] += 1.0
    # The input is the same image for both: only the loss can differ.
    generate, begin = start(fit)
    last = [list(dip(generate, begin, Data(fit.A, y, weights), held, OPTIONS))[-1] for y in (fit.y, spoiled)]
    assert_same(*last)


def test_projections_of_nothing_are_refused(problem):
    _, fit, _ = problem
    with pytest.raises(InputError, match="no object"):
        start(Data(fit.A, torch.zeros_like(fit.y), fit.weights))


def test_scale_is_about_the_objects_attenuation_and_follows_its_unit(problem):
    truth, fit, _ = problem
    generate, weights = start(fit)
    object_mean = float(truth.square().sum() / truth.sum())
    assert 0.9 * object_mean < float(generate.scale) < 1.5 * object_mean
    for unit in (1e-6, 1e3):
        other, _ = start(Data(fit.A, unit * fit.y, fit.weights))
        assert float(other.scale) == pytest.approx(unit * float(generate.scale), rel=1e-4)
        torch.testing.assert_close(other.inputs, generate.inputs)
    flat = generate(weights)
    assert float(flat.mean()) == pytest.approx(float(truth.mean()), rel=0.5)


def test_network_of_one_image_is_ready_to_be_linearised(problem):
    generate, states = run(problem, replace(OPTIONS, iterations=10))
    network, inputs = generate.module(states[-1].best)
    with torch.no_grad():
        image = generate.scale[0] * network(inputs)[0, 0]
    torch.testing.assert_close(image, generate(states[-1].best)[0])


def test_total_variation_smooths_noise_and_leaves_clean_scans_alone(problem, monkeypatch):
    monkeypatch.setattr(module, "_MOST_VARIATION", 1.0)
    truth, fit, held = problem
    noise = 0.3 * fit.y.mean() * torch.randn(fit.y.shape, generator=torch.Generator().manual_seed(3))
    shares = []
    for data in (fit, Data(fit.A, fit.y + noise, fit.weights)):
        options = replace(OPTIONS, iterations=120, patience=1.0)
        rough, smooth = (run((truth, data, held), replace(options, total_variation=v)) for v in (0.0, 10.0))
        variation = [float(module._variation(g(s[-1].average)).detach()) for g, s in (rough, smooth)]
        shares.append(variation[1] / variation[0])
    assert shares[1] < 0.8 < 0.9 < shares[0]


def uneven_air(problem):
    """Rays of both parts with waves along the detector that move from view to view."""
    columns = torch.arange(22.0) / 3
    return [
        replace(part, y=part.y + 0.6 * part.y.max() * torch.sin(columns + 2.0 * torch.arange(part.y.shape[1])[:, None]))
        for part in problem[1:]
    ]


def test_an_object_that_is_faint_beside_the_air_is_found_where_another_method_finds_it(problem):
    """Uneven air is most of the rays' size: no image explains three quarters of it. Where nobody says what another does, it is
    asked.
    """
    uneven = uneven_air(problem)
    options = replace(OPTIONS, iterations=150, check_every=50)
    image = tv(uneven[0].A, uneven[0].y)
    known = replace(uneven[1], beside=float(uneven[1].misfit(image)))
    assert 0.3 < known.beside / float(known.size) < 1
    for held in (known, uneven[1]):
        _, states = run((None, uneven[0], held), options)
        assert states[-1].attempt == 0 and states[-1].iteration == 150


def test_rays_that_no_image_explains_end_in_one_sentence(problem, monkeypatch):
    monkeypatch.setattr(module, "_LIKE_ANOTHER", 0.0)
    with pytest.raises(FitError, match="finds nothing in 6 attempts; check the projections"):
        run((None, *uneven_air(problem)), replace(OPTIONS, iterations=150, check_every=50))
