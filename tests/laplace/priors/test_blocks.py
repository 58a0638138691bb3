import pytest
import torch

from ctuq.errors import InputError
from ctuq.laplace.priors.blocks import by_module, grouped
from ctuq.linops.jacobian.network import Frozen, WeightBlock
from ctuq.recon.unet import UNet, UNetOptions

BLOCKS = (
    WeightBlock("a.0.weight", slice(0, 4), (2, 2)),
    WeightBlock("a.1.weight", slice(4, 6), (1, 2)),
    WeightBlock("b.weight", slice(6, 7), (1, 1)),
)


def test_groups_hold_the_blocks_they_name():
    groups = grouped(BLOCKS, {"last": ["b.weight"], "rest": ["a.1.weight", "a.0.weight"]})
    assert groups == {"last": (BLOCKS[2],), "rest": (BLOCKS[1], BLOCKS[0])}


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ({"one": ["a.0.weight", "b.weight"]}, "misses 1 parameters .a.1.weight."),
        ({"one": ["a.0.weight", "a.1.weight", "b.weight", "c"]}, "'c'"),
        ({"one": ["a.0.weight", "a.1.weight"], "two": ["a.1.weight", "b.weight"]}, "one group only"),
        ({"one": ["a.0.weight", "a.1.weight", "b.weight"], "two": []}, "needs a parameter"),
    ],
)
def test_groups_that_miss_repeat_or_invent_parameters_are_refused(groups, told):
    with pytest.raises(InputError, match=told):
        grouped(BLOCKS, groups)


def test_modules_group_by_depth_of_their_names():
    assert by_module(BLOCKS) == {"a": ("a.0.weight", "a.1.weight"), "b": ("b.weight",)}
    assert list(by_module(BLOCKS, 2)) == ["a.0", "a.1", "b"]


def test_modules_of_depth_two_of_a_unet_are_its_resolutions_down_and_up_its_skips_and_the_output():
    network = UNet(UNetOptions(channels=(4, 4, 4), skips=(2, 0), groups=2), torch.Generator().manual_seed(0))
    frozen = Frozen.of(network)
    groups = by_module(frozen.blocks, 2)
    assert set(groups) == {"down.0", "down.1", "down.2", "up.0", "up.1", "skip.0", "out"}
    assert all(len(names) == (2 if name[:2] in ("do", "up") else 1) for name, names in groups.items())
    assert sum(len(names) for names in groups.values()) == len(frozen.blocks)
    assert torch.Size(frozen.blocks[-1].shape[2:]) == (1, 1)
