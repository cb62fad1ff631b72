"""The same task as a PyTorch model: ``net.py:trained``, trained by ``net.py:train``.

Needs learn.npz of make_model.py in the current folder.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

LEARN = Path("learn.npz")
EPOCHS, BATCH = 6, 50


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, padding=1)
        self.second = nn.Conv2d(32, 64, 3, padding=1)
        self.third = nn.Conv2d(64, 64, 3, padding=1)
        self.scores = nn.Linear(1024, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first(image))
        x = functional.relu(self.second(x))
        x = functional.avg_pool2d(functional.relu(self.third(x)), 2)
        return self.scores(torch.flatten(x, 1))


def trained() -> nn.Module:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the same weights in each call
    model = Net().train()
    train(model, epochs=EPOCHS, loss=lambda _inputs, _outputs, own: own, seed=0)
    return model.eval()


def train(model: nn.Module, *, epochs: int, loss, seed: int) -> None:
    with np.load(LEARN) as data:
        images, classes = torch.from_numpy(data["X"]), torch.from_numpy(data["y"])
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for taken in torch.randperm(len(images), generator=order).split(BATCH):
            outputs = model(images[taken])
            own = functional.cross_entropy(outputs, classes[taken])
            value = loss(images[taken], outputs, own)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
