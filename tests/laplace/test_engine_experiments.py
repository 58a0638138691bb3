"""Data and tables of the engine's experiments."""

import gzip

import numpy as np
import pytest
import torch

from experiments.engine.images import halved, load, rotated, split
from experiments.engine.networks import build, lenet, mlp, train
from experiments.engine.rows import Rows


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def test_mnist_files_are_read_as_they_were_written(tmp_path):
    pixels, labels = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 256, np.array([7, 0, 9])
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", pixels)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", labels)
    found = load(tmp_path)
    assert found.name == "mnist" and found.y.tolist() == [7, 0, 9]
    np.testing.assert_allclose(found.x[:, 0].numpy() * 255, pixels, rtol=1e-6)
    assert halved(found).x.shape == (3, 1, 14, 14)


def test_cifar_is_read_from_its_binary_version(tmp_path):
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (4, 3073), dtype=np.uint8)
    records[:, 0] = [3, 1, 0, 9]
    records[:2].tofile(tmp_path / "data_batch_1.bin")
    records[2:].tofile(tmp_path / "test_batch.bin")
    found = load(tmp_path)
    assert found.name == "cifar10" and found.y.tolist() == [3, 1, 0, 9] and found.x.shape == (4, 3, 32, 32)
    np.testing.assert_allclose(found.x[2, 1, 5, 7] * 255, records[2, 1 + 1024 + 5 * 32 + 7], rtol=1e-6)


def test_a_quarter_turn_moves_pixels_exactly_and_a_whole_one_not_at_all(rng):
    x = torch.rand(2, 1, 8, 8, generator=rng)
    turned = rotated(x, 90)
    assert any(torch.allclose(turned, x.rot90(k, (2, 3)), atol=1e-5) for k in (1, -1))
    torch.testing.assert_close(rotated(x, 360), x, atol=1e-5, rtol=0)


def test_parts_of_a_split_are_disjoint(rng):
    images = load_numbered(20)
    parts = split(images, 9, 4, 5, rng=rng)
    numbers = [part[0].reshape(-1).long().tolist() for part in (parts.train, parts.held_out, parts.test)]
    assert [len(n) for n in numbers] == [9, 4, 5] and len({i for part in numbers for i in part}) == 18


def load_numbered(n):
    from experiments.engine.images import Images

    return Images("numbers", torch.arange(float(n)).reshape(n, 1, 1, 1), torch.arange(n))


def test_finished_rows_are_found_again(tmp_path):
    Rows(tmp_path / "a.csv").add([{"method": "map", "seed": 0, "value": 1 / 3}])
    found = Rows(tmp_path / "a.csv")
    assert found.where(method="map", seed=0)[0]["value"] == pytest.approx(1 / 3, rel=1e-4)
    assert not found.where(method="map", seed=1)


@pytest.mark.parametrize("size", [8, 14, 28, 32])
def test_lenet_takes_images_of_these_sizes(size):
    assert build(lambda: lenet(1, size), 0)(torch.zeros(2, 1, size, size)).shape == (2, 10)


def test_networks_and_their_training_depend_on_the_seed_alone(rng):
    x, y = torch.randn(30, 2, generator=rng), torch.randint(0, 3, (30,), generator=rng)
    state = torch.get_rng_state()
    first, second = (train(build(lambda: mlp([2, 5, 3], dropped=0.2), 4), x, y, epochs=3, seed=4)(x) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(state, torch.get_rng_state())
