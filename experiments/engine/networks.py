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


def resnet18(channels: int, *, classes: int = 10, dropped: float = 0.0, width: int = 64) -> nn.Module:
    """ResNet-18 for images of 32 x 32 pixels: no pooling at its entrance; 11.2 million weights at a width of 64.

    Its forward pass, and the number of its weights, go as the square of the width.
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    before = width
    for stage in range(4):
        for block in range(2):
            layers.append(_Residual(before, width << stage, 2 if stage and not block else 1))
            before = width << stage
    drop = [nn.Dropout(dropped)] * (dropped > 0)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *drop, nn.Linear(before, classes))


class _Residual(nn.Module):
    """Two convolutions beside a shortcut, a projection where the shape changes (He, Zhang, Ren and Sun, CVPR 2016)."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        first = [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.inner = nn.Sequential(*first, nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after))
        same = before == after and stride == 1
        project = [nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)]
        self.beside = nn.Sequential(*([] if same else project))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.inner(x) + self.beside(x))


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
