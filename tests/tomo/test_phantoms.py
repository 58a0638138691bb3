import numpy as np
import pytest

from ctuq.tomo import phantoms


@pytest.mark.parametrize("name", phantoms.PHANTOMS)
def test_values_are_between_0_and_1_and_something_is_there(name):
    image = phantoms.PHANTOMS[name](64, np.random.default_rng(1))
    assert image.shape == (64, 64) and image.dtype == np.float32
    assert image.min() >= 0 and 0.5 < image.max() <= 1
    assert 0.03 < (image > 0.1).mean() < 0.9


@pytest.mark.parametrize("name", phantoms.PHANTOMS)
def test_one_seed_draws_one_object_at_every_size(name):
    coarse = phantoms.PHANTOMS[name](64, np.random.default_rng(3))
    fine = phantoms.PHANTOMS[name](256, np.random.default_rng(3)).reshape(64, 4, 64, 4).mean(axis=(1, 3))
    assert np.corrcoef(coarse.ravel(), fine.ravel())[0, 1] > 0.93


@pytest.mark.parametrize("name", [n for n in phantoms.PHANTOMS if n != "shepp-logan"])
def test_seeds_differ(name):
    draw = phantoms.PHANTOMS[name]
    assert not np.array_equal(draw(48, np.random.default_rng(0)), draw(48, np.random.default_rng(1)))


@pytest.mark.parametrize("direction", [0.0, 0.6, np.pi / 2, 2.5])
def test_rectangles_lie_along_the_direction_asked_for(direction):
    def fine_structure(along):
        """Variance of the image's gradient along a direction; least along the bars."""
        return np.mean((np.cos(along) * gx + np.sin(along) * gy) ** 2)

    turns = np.linspace(0, np.pi, 60, endpoint=False)
    total = np.zeros(60)
    for seed in range(6):
        image = phantoms.rectangles(96, np.random.default_rng(seed), direction=direction)
        down, gx = np.gradient(image)
        gy = -down
        total += [fine_structure(turn) for turn in turns]
    gap = (turns[np.argmin(total)] - direction + np.pi / 2) % np.pi - np.pi / 2
    assert abs(gap) < 0.15


def test_the_shepp_logan_head_has_its_landmarks():
    image = phantoms.shepp_logan(256)
    centre, skull = image[128, 128], image[128, int(128 + 0.675 * 128)]
    assert centre == pytest.approx(0.2, abs=1e-6) and skull == pytest.approx(1.0)
    assert image[int(128 - 0.35 * 128), 128] == pytest.approx(0.3, abs=1e-6), "the large upper ellipse"
    assert image[0, 0] == 0
