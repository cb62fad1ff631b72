"""PyTorch models of Fashion-MNIST for bench/optimize_models.py, and their training function.

Runs under ``.venv-torch`` (``make torch``). ``python bench/fashion_torch.py NAME MINUTES`` trains
``cnn``, ``wide`` or ``transformer`` until the time is over and writes its weights to the cache; a
second call trains them further. The functions without arguments return models for ``TorchModel``,
and ``train`` is the one of ``TorchTrainer``. Weights are read with ``weights_only=True``.
"""

import gzip
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

CACHE = Path(os.environ.get("EDGEFLEET_OPTIMIZE", Path.home() / ".cache/edgefleet/optimize"))
DATA = CACHE / "fashion-mnist"
MEAN, STD = 0.286, 0.353
BATCH = 64
SUBSET = int(os.environ.get("EDGEFLEET_SUBSET", "0"))  # train on the first cases only


def images(part: str) -> np.ndarray:
    """Normalised images [cases, 1, 28, 28] of ``train`` or ``t10k``."""
    raw = gzip.decompress((DATA / f"{part}-images-idx3-ubyte.gz").read_bytes())
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return ((pixels.astype(np.float32) / 255) - MEAN) / STD


def labels(part: str) -> np.ndarray:
    raw = gzip.decompress((DATA / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(raw, np.uint8, offset=8).astype(np.int64)


def _block(given: int, made: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(given, made, 3, stride, 1, bias=False), nn.BatchNorm2d(made), nn.ReLU()
    )


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _block(width, width)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(x + self.second(self.first(x)))


class Cnn(nn.Module):
    """Convolutions with a residual block, then one wide layer, which has most of the weights."""

    def __init__(self, hidden: int = 3520) -> None:
        super().__init__()
        self.trunk = nn.Sequential(_block(1, 32, 2), _block(32, 64, 2), Residual(64))
        self.hidden = nn.Linear(64 * 7 * 7, hidden)
        self.scores = nn.Linear(hidden, 10)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return torch.flatten(self.trunk(x), 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        wide = functional.dropout(functional.relu(self.hidden(self.features(image))), 0.3,
                                  self.training)  # fmt: skip
        return self.scores(wide)


class Student(nn.Module):
    """37,000 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            _block(1, 16, 2), _block(16, 32, 2), _block(32, 48), nn.AdaptiveAvgPool2d(1)
        )
        self.hidden = nn.Linear(48, 256)
        self.scores = nn.Linear(256, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = torch.flatten(self.trunk(image), 1)
        return self.scores(functional.relu(self.hidden(found)))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asked, self.key, self.value, self.mixed = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = self.first(x)
        q, k, v = self._split(self.asked(n)), self._split(self.key(n)), self._split(self.value(n))
        weights = torch.softmax(q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5), dim=-1)
        x = x + self.mixed((weights @ v).transpose(1, 2).flatten(2))
        return x + self.narrow(functional.gelu(self.wide(self.second(x))))


class Transformer(nn.Module):
    """16 patches of 7x7 pixels, three layers of attention."""

    def __init__(self, width: int = 128, layers: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.places = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.layers = nn.Sequential(*(Attention(width, 4) for _ in range(layers)))
        self.last = nn.LayerNorm(width)
        self.scores = nn.Linear(width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2) + self.places
        return self.scores(self.last(self.layers(x)).mean(dim=1))


def _loaded(model: nn.Module, name: str) -> nn.Module:
    state = torch.load(CACHE / f"{name}.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(state)
    return model


def cnn() -> nn.Module:
    """11.2 million weights."""
    return _loaded(Cnn(), "cnn")


def wide() -> nn.Module:
    """25 million weights, 100.3 MB."""
    return _loaded(Cnn(7936), "wide")


def transformer() -> nn.Module:
    return _loaded(Transformer(), "transformer")


def student() -> nn.Module:
    """Untrained."""
    return Student()


def train(model: nn.Module, *, epochs: int, loss, seed: int) -> None:
    """Train on Fashion-MNIST, with shifts by up to 2 pixels and mirroring."""
    given, wanted = images("train"), labels("train")
    if SUBSET:
        given, wanted = given[:SUBSET], wanted[:SUBSET]
    batch = min(BATCH, max(32, len(given) // 32))
    steps = epochs * (len(given) // batch)
    fit(model, given, wanted, loss, seed, steps=steps, batch=batch)


def fit(model, given, wanted, loss, seed, *, steps, batch, rate=2e-3, until=float("inf")) -> int:
    """AdamW with a rate that rises, then falls to zero. Stops at ``until``. Returns the steps."""
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    order, at, began = rng.permutation(len(given)), 0, time.monotonic()
    for step in range(steps):
        share = step / steps
        if until != float("inf"):  # the share of the time, where that is the limit
            share = max(share, (time.monotonic() - began) / (until - began))
        if share >= 1:
            return step
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, 10 * share + 0.05) * (1 - share)
        if at + batch > len(order):
            order, at = rng.permutation(len(given)), 0
        rows, at = order[at : at + batch], at + batch
        x = torch.from_numpy(shifted(given[rows], rng))
        y = torch.from_numpy(wanted[rows])
        out = model(x)
        value = loss(x, out, functional.cross_entropy(out, y))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step} of {steps}, {share:.0%}: loss {value.item():.3f}", flush=True)
    return steps


def shifted(batch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The images moved by up to 2 pixels, half of them mirrored."""
    edge = np.float32(-MEAN / STD)
    padded = np.pad(batch, ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=edge)
    rows, columns = rng.integers(0, 5, (2, len(batch)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (28, 28), axis=(2, 3))
    moved = windows[np.arange(len(batch)), :, rows, columns]
    mirrored = rng.random(len(batch)) < 0.5
    made = np.where(mirrored[:, None, None, None], moved[..., ::-1], moved)
    return np.ascontiguousarray(made)


def accuracy(model: nn.Module) -> float:
    model.eval()
    given, wanted = images("t10k"), labels("t10k")
    with torch.no_grad():
        parts = [torch.from_numpy(given[at : at + 500]) for at in range(0, len(given), 500)]
        made = [model(part).argmax(1) for part in parts]
    return float((torch.cat(made).numpy() == wanted).mean())


def main(name: str, minutes: float) -> None:
    torch.manual_seed(0)
    model = {"cnn": Cnn, "wide": lambda: Cnn(7936), "transformer": Transformer}[name]()
    given, wanted = images("train"), labels("train")
    if (CACHE / f"{name}.pt").exists():
        model = globals()[name]()  # trained further
    elif name == "wide":  # the trained convolutions stay: only the new layers learn
        state = torch.load(CACHE / "cnn.pt", map_location="cpu", weights_only=True)
        trunk = {key: value for key, value in state.items() if key.startswith("trunk")}
        model.load_state_dict(trunk, strict=False)
        model.trunk.requires_grad_(False)
    until = time.monotonic() + 60 * minutes
    steps = fit(model.train(), given, wanted, lambda _x, _out, own: own, 0,
                steps=20 * len(given) // BATCH, batch=BATCH,
                rate=1e-3 if name == "transformer" else 2e-3, until=until)  # fmt: skip
    found = accuracy(model)
    torch.save(model.state_dict(), CACHE / f"{name}.pt")
    (CACHE / f"{name}.txt").write_text(
        f"{steps} steps of {BATCH} images, {steps * BATCH / len(given):.2f} epochs, "
        f"accuracy {found:.4f} on 10,000 test images\n"
    )
    print((CACHE / f"{name}.txt").read_text(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
