import pytest
import torch

from ctuq.errors import InputError
from ctuq.gp import Domain, GaussianProcess, Matern52, Search, thompson
from ctuq.gp.thompson import maximise_paths

CENTRE = torch.tensor([0.6, -0.4], dtype=torch.float64)


def hill(x):
    return torch.exp(-2 * (x - CENTRE).square().sum(1))


@pytest.fixture
def domain():
    return Domain(torch.full((2,), -2.0, dtype=torch.float64), torch.full((2,), 2.0, dtype=torch.float64))


@pytest.fixture
def process():
    return GaussianProcess(Matern52.of(0.3, [0.8, 0.8]), 1e-4)


def campaign(process, domain, seed, **settings):
    rng = torch.Generator().manual_seed(seed)
    x = domain.uniform(10, rng=rng)

    def draw(x, y):
        return process.condition(x, y, rng=rng, **settings).samples(8, rng=rng, features=60)

    return thompson(hill, draw, x, hill(x), domain, rounds=3, search=Search(300, 2, 10), rng=rng)


def test_each_function_is_maximised_over_the_box(process, rng):
    line = Domain(torch.tensor([-3.0], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64))
    process = GaussianProcess(Matern52.of(1.0, [0.7]), 1e-2)
    x = torch.linspace(-3, 2, 6, dtype=torch.float64)[:, None]
    paths = process.condition(x, x[:, 0].sin(), rng=rng).samples(9, rng=rng, features=100)
    place, value = maximise_paths(paths, line, x, search=Search(200, 3, 40), rng=rng)
    fine = torch.linspace(-3, 2, 4001, dtype=torch.float64)[:, None]
    assert (value > paths(fine).amax(1) - 1e-4).all()
    torch.testing.assert_close(paths.each(place[:, None])[:, 0], value)
    assert ((place >= -3) & (place <= 2)).all()


def test_ascent_improves_on_the_candidates(process, domain, rng):
    x = domain.uniform(20, rng=rng)
    paths = process.condition(x, hill(x), rng=rng).samples(5, rng=rng, features=100)
    values = [
        maximise_paths(paths, domain, x, search=Search(60, 2, s), rng=torch.Generator().manual_seed(1))[1] for s in (0, 30)
    ]
    assert (values[1] >= values[0]).all()
    assert (values[1] > values[0] + 1e-4).any()


@pytest.mark.parametrize("settings", [{}, {"solver": "cg"}], ids=str)
def test_rounds_of_parallel_draws_find_the_top(settings, process, domain):
    found = campaign(process, domain, 0, **settings)
    assert len(found.x) == len(found.y) == 10 + 3 * 8
    assert len(found.best) == len(found.seconds) == 4
    assert len(found.residual) == 3
    assert list(found.best) == sorted(found.best)
    assert found.best[0] < 0.9 < 0.98 < found.best[-1]
    assert found.best[-1] == float(found.y.max())
    assert ((found.x >= domain.lower) & (found.x <= domain.upper)).all()


def test_a_campaign_depends_on_the_generator_alone(process, domain):
    one, same, other = (campaign(process, domain, seed) for seed in (3, 3, 4))
    assert torch.equal(one.x, same.x)
    assert not torch.equal(one.x, other.x)


def test_nothing_to_do_is_refused(process, domain, rng):
    x = domain.uniform(3, rng=rng)
    with pytest.raises(InputError, match="at least 1 round and 1 datum, not 0 and 3"):
        thompson(hill, None, x, hill(x), domain, rounds=0, rng=rng)
