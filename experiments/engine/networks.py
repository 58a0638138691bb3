"""Small networks and their training, seeded."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def build(make, seed: int) -> nn.Module:
    """``make()`` with its first weights from a seed; torch's own generator is left as it was."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return make()


def mlp(sizes: Sequence[int], *, activation: type[nn.Module] = nn.ReLU, dropped: float = 0.0, norm: bool = False) -> nn.Module:
    """Layers of these sizes; layer normalisation before, and dropout after, each activation."""
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (a, b) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(a, b))
        if i < len(sizes) - 2:
            layers += [nn.LayerNorm(b, eps=1e-14)] * norm + [activation()] + [nn.Dropout(dropped)] * (dropped > 0)
    return nn.Sequential(*layers)


def lenet(channels: int, size: int, *, classes: int = 10, dropped: float = 0.0, width: int = 8) -> nn.Module:
    """Two convolutions with pooling and two linear layers; 14,000 weights at 28 x 28 pixels.

    Images of less than 14 pixels are padded, since two poolings would leave nothing of them.
    """
    kernel, pad = 5 if size >= 28 else 3, int(size < 14)
    inner = ((size + 2 * pad - kernel + 1) // 2 + 2 * pad - kernel + 1) // 2
    drop = [nn.Dropout(dropped)] * (dropped > 0)
    first = [nn.Conv2d(channels, width, kernel, padding=pad), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(width, 2 * width, kernel, padding=pad), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    dense = [*drop, nn.Linear(2 * width * inner**2, 5 * width), nn.ReLU(), *drop, nn.Linear(5 * width, classes)]
    return nn.Sequential(*first, *second, *dense)


def train(
    network: nn.Module, x: Tensor, y: Tensor, *, epochs: int, seed: int, lr: float = 1e-2, decay: float = 1e-4, batch: int = 128
) -> nn.Module:
    """Adam with a cosine schedule on cross entropy (integers y) or squared error; in evaluation mode afterwards."""
    rng = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=decay)
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    loss = nn.functional.mse_loss if y.is_floating_point() else nn.functional.cross_entropy
    network.train()
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        for _ in range(epochs):
            for index in torch.randperm(len(x), generator=rng).split(batch):
                optimiser.zero_grad()
                loss(network(x[index]), y[index]).backward()
                optimiser.step()
                schedule.step()
    return network.eval()
