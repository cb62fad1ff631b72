"""A publisher's PyTorch code for tests: a small model with a residual block, and its training.

Each picture [1, 8, 8] is the fixed pattern of its class with noise, so that a small model learns it
in a few epochs.
"""

import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

CLASSES = 4
_PATTERNS = np.random.default_rng(0).normal(size=(CLASSES, 1, 8, 8)).astype(np.float32)


def data(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    wanted = rng.integers(0, CLASSES, count)
    noise = rng.normal(scale=1.5, size=(count, 1, 8, 8)).astype(np.float32)
    return _PATTERNS[wanted] + noise, wanted


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.inner = nn.Conv2d(32, 32, 3, padding=1)
        self.deep = nn.Linear(32 * 16, 64)
        self.scores = nn.Linear(64, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.first(image)))
        x = functional.max_pool2d(functional.relu(x + self.inner(x)), 2)
        return self.scores(functional.relu(self.deep(torch.flatten(x, 1))))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.deep, self.scores = nn.Linear(64, 16), nn.Linear(16, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.scores(functional.relu(self.deep(torch.flatten(image, 1))))


class FixedBatch(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.reshape(2, 64).sum(dim=1, keepdim=True)


class AcrossCases(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.flatten(image - image.mean(dim=0, keepdim=True), 1)


def trained() -> nn.Module:
    """Trained in the first call; later ones, also of other processes, read its weights."""
    torch.manual_seed(1)
    model, kept = Net().train(), Path(os.environ["PATTERNS_WEIGHTS"])
    if kept.exists():
        model.load_state_dict(torch.load(kept, weights_only=True))
    else:
        train(model, epochs=4, loss=lambda _inputs, _outputs, own: own, seed=1)
        torch.save(model.state_dict(), kept)
    return model


def save(folder: str) -> None:
    """The model in the formats without pickled objects."""
    model, given = trained().eval(), torch.from_numpy(data(3, 7)[0])
    torch.jit.trace(model, given).save(f"{folder}/script.pt")
    batch = [{0: torch.export.Dim("batch")}]
    torch.export.save(
        torch.export.export(model, (given,), dynamic_shapes=batch), f"{folder}/program.pt2"
    )
    torch.export.save(torch.export.export(model, (given,)), f"{folder}/fixed.pt2")


def small() -> nn.Module:
    torch.manual_seed(2)
    return Small()


def fixed_batch() -> nn.Module:
    return FixedBatch()


def across_cases() -> nn.Module:
    return AcrossCases()


def no_module() -> int:
    return 3


def train(model: nn.Module, *, epochs: int, loss, seed: int) -> None:
    given, wanted = data(512, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(epochs):
        print(f"epoch {epoch}", flush=True)
        for at in range(0, len(given), 32):
            x, y = torch.from_numpy(given[at : at + 32]), torch.from_numpy(wanted[at : at + 32])
            out = model(x)
            value = loss(x, out, functional.cross_entropy(out, y))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()


def train_nothing(model: nn.Module, *, epochs: int, loss, seed: int) -> None:
    del model, epochs, loss, seed


def train_without_loss(model: nn.Module, *, epochs: int, loss, seed: int) -> None:
    del loss
    train(model, epochs=epochs, loss=lambda _inputs, _outputs, own: own, seed=seed)


def train_and_fail(model: nn.Module, *, epochs: int, loss, seed: int) -> None:
    raise ValueError("the data set is gone")


def train_for_long(model: nn.Module, *, epochs: int, loss, seed: int) -> None:
    time.sleep(600)
