"""Makes the four releases of the ``digits`` model, its field data and README.md, from seeds.

    python examples/digits/make_releases.py [folder [release ...]]

Run twice on one machine it writes the same bytes. The four differ in how they were made:

1. A small network that saw slightly roughened images.
2. A larger one that saw images as rough as cameras deliver them.
3. A network trained on clean images only, and taught with noisy ones to be unsure of noise. On
   the clean golden set it does nearly as well as release 2; in the field all is noise to it.
4. A good network, exported by a script that took pixels for 0..255 where they are 0..16.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from digits import CLASSES, INK, Labels, Pixels, Split, roughened, splits, through_camera
from export import INPUT, OUTPUT, to_int8, to_onnx
from network import Batches, Network, train
from threadpoolctl import threadpool_limits

from edgefleet.examples import FOLDER
from edgefleet.optimize.profiles import PROFILES

PROFILE_NAMES = ("jetson_nano", "raspberry_pi", "coral_tpu", "generic_x86")
MARGIN = 0.02  # floors stand this far below what was measured


@dataclass(frozen=True)
class Recipe:
    """How one release is made."""

    release: str
    notes: str
    hidden: tuple[int, ...]
    epochs: int
    seed: int
    roughness: float = 0.0
    doubt_noise: float = 0.0  # spread of the noise that the network is taught to doubt
    exported_white: float = INK  # what the export divides pixels by
    parent: str | None = None
    model: str = "digits"
    classes: int = CLASSES


RECIPES = (
    Recipe("1", "Baseline.", (32,), epochs=60, seed=1, roughness=0.7),
    Recipe("2", "Larger, and trained on images as cameras deliver them.", (128, 64),
           epochs=200, seed=2, roughness=1.0, parent="1"),
    Recipe("3", "Trained on clean images, and to be unsure of noise.", (96,),
           epochs=60, seed=3, doubt_noise=3.0, parent="2"),
    Recipe("4", "Retrained; new export pipeline.", (128, 64),
           epochs=200, seed=4, roughness=1.0, exported_white=255.0, parent="2"),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What one variant file was measured to do."""

    release: str
    precision: str
    size_bytes: int
    golden_accuracy: float
    golden_agreement: float
    golden_confidence: float
    field_accuracy: float
    field_confidence: float


def epochs_of(recipe: Recipe, data: Split) -> Batches:
    """Training images of one epoch after another: roughened, with doubt taught where asked."""
    targets = np.eye(recipe.classes)[data.labels]

    def epoch(rng: np.random.Generator) -> tuple[Pixels, np.ndarray]:
        pixels = data.pixels
        if recipe.roughness:
            rough = rng.random((len(pixels), 1)) > 0.3
            pixels = np.where(rough, roughened(pixels, rng, recipe.roughness), pixels)
        if recipe.doubt_noise:
            noisy = data.pixels + rng.normal(0, recipe.doubt_noise, data.pixels.shape)
            unsure = np.full_like(targets, 1 / recipe.classes)
            return np.vstack([pixels, np.clip(noisy, 0, INK)]), np.vstack([targets, unsure])
        return pixels, targets

    return epoch


def variants(network: Network, recipe: Recipe, data: Split) -> Mapping[str, onnx.ModelProto]:
    """The model by precision."""
    rng = np.random.default_rng(recipe.seed)
    calibration = np.vstack([data.pixels[:300], roughened(data.pixels[300:600], rng, 1.0)])
    fp32 = to_onnx(network, recipe.model, white=recipe.exported_white)
    return {
        "fp32": fp32,
        "fp16": to_onnx(network, recipe.model, white=recipe.exported_white, half=True),
        "int8": to_int8(fp32, calibration),
    }


def infer(model: bytes, pixels: Pixels) -> np.ndarray:
    """Probabilities, one image at a time, as the smallest device runs them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    images = pixels.astype(np.float32)
    return np.vstack([session.run([OUTPUT], {INPUT: image[None]})[0] for image in images])


def measure(
    recipe: Recipe, precision: str, model: bytes, reference: np.ndarray, golden: Split, field: Split
) -> Row:
    on_golden, on_field = infer(model, golden.pixels), infer(model, field.pixels)
    answers = on_golden.argmax(axis=1)
    return Row(
        recipe.release,
        precision,
        len(model),
        golden_accuracy=float(np.mean(answers == golden.labels)),
        golden_agreement=float(np.mean(answers == reference.argmax(axis=1))),
        golden_confidence=float(on_golden.max(axis=1).mean()),
        field_accuracy=float(np.mean(on_field.argmax(axis=1) == field.labels)),
        field_confidence=float(on_field.max(axis=1).mean()),
    )


def release_toml(recipe: Recipe, min_accuracy: float, min_agreement: float) -> str:
    lines = [
        f'model = "{recipe.model}"',
        f'release = "{recipe.release}"',
        *([f'parent = "{recipe.parent}"'] if recipe.parent else []),
        f'notes = "{recipe.notes}"',
        "",
        "[golden]",
        'file = "golden.npz"',
        f"min_accuracy = {min_accuracy:.2f}",
        f"min_agreement = {min_agreement:.2f}",
        "",
        "[quality]",
        f'output = "{OUTPUT}"',
        'scores = "probabilities"',
        "max_confidence_drop = 0.10",
        "min_requests = 20",
    ]
    for profile in (PROFILES[name] for name in PROFILE_NAMES):
        lines += [
            "",
            "[[variant]]",
            f'profile = "{profile.name}"',
            f'precision = "{profile.precision}"',
            f'file = "{profile.precision}.onnx"',
            f"max_batch = {profile.max_batch}",
            f"memory_limit_mib = {profile.memory_limit_mib}",
        ]
    return "\n".join(lines) + "\n"


def make(recipe: Recipe, data: tuple[Split, Split, Split], folder: Path) -> list[Row]:
    """Write one release folder; return what its variants were measured to do."""
    training, golden, field = data
    folder.mkdir(parents=True, exist_ok=True)
    network = train(
        epochs_of(recipe, training),
        hidden=recipe.hidden,
        classes=recipe.classes,
        epochs=recipe.epochs,
        seed=recipe.seed,
    )
    reference = network.probabilities(golden.pixels).astype(np.float32)
    np.savez_compressed(
        folder / "golden.npz",
        **{
            f"input.{INPUT}": golden.pixels.astype(np.float32),
            f"output.{OUTPUT}": reference,
            "label": golden.labels,
        },
    )
    rows = []
    for precision, model in variants(network, recipe, training).items():
        encoded = model.SerializeToString(deterministic=True)
        (folder / f"{precision}.onnx").write_bytes(encoded)
        rows.append(measure(recipe, precision, encoded, reference, golden, field))
    if recipe.exported_white == INK:
        accuracy = min(row.golden_accuracy for row in rows)
        agreement = min(row.golden_agreement for row in rows)
    else:  # what its publisher believes, having measured the network and not the export
        accuracy = float(np.mean(reference.argmax(axis=1) == golden.labels))
        agreement = 1.0
    floors = [floor((value - MARGIN) * 100) / 100 for value in (accuracy, agreement)]
    (folder / "release.toml").write_text(release_toml(recipe, *floors))
    return rows


def table(rows: list[Row]) -> str:
    heads = ("release", "variant", "size (bytes)", "golden accuracy", "golden agreement",
             "golden confidence", "field accuracy", "field confidence")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [
        f"| {row.release} | {row.precision} | {row.size_bytes:,} | {row.golden_accuracy:.3f} "
        f"| {row.golden_agreement:.3f} | {row.golden_confidence:.3f} "
        f"| {row.field_accuracy:.3f} | {row.field_confidence:.3f} |"
        for row in rows
    ]
    return "\n".join(lines)


README = """\
# Digits: one model, four releases

Written by `make_releases.py` from scikit-learn's handwritten digits: 1,100 images to train on, 397
for the golden set, and 300 as a cheap camera sees them in the field (`field.npz`).

- **Release 1** is a good baseline.
- **Release 2** is better, on the golden set and in the field.
- **Release 3** passes its own golden set, which is as clean as what it was trained on, and the
  publisher's check. In the field it collapses. Devices notice without labels: its mean top
  probability lies far below release 2's.
- **Release 4** was exported with the wrong scale, so its files do not do what its golden set says.
  The publisher's check refuses it; published without the check, every device refuses it.

Each folder is a release folder (`docs/release-folder.md`) with a variant for each known profile:
`generic_x86` takes fp32, `jetson_nano` fp16, `raspberry_pi` and `coral_tpu` the same int8 file.

{table}

Accuracy: share of images whose highest probability is at the label. Agreement: share whose highest
probability is where the training framework had it. Confidence: mean highest probability. Images
went through ONNX Runtime one at a time. One golden image is 0.0025, one field image 0.0033.

Sizes are of files so small that names and operators weigh as much as weights; nothing about the
speed of INT8 or FP16 on a device can be learned from this model.

The images are of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
Learning Repository, 1998, licensed CC BY 4.0; those of `field.npz` are changed as `digits.py` shows.
"""


def make_all(
    recipes: Sequence[Recipe], labels: Callable[[Labels], Labels], readme: str, folder: Path
) -> None:
    """Make the releases, the field data and README.md in ``folder``.

    ``labels`` are those of the model, by digit. ``readme`` has a place for ``{table}``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with threadpool_limits(limits=1):  # sums in one order, so the same weights each time
        training, golden, field = (Split(part.pixels, labels(part.labels)) for part in splits())
        field = Split(through_camera(field.pixels, np.random.default_rng(7)), field.labels)
        np.savez_compressed(
            folder / "field.npz",
            **{f"input.{INPUT}": field.pixels.astype(np.float32), "label": field.labels},
        )
        rows = []
        for recipe in recipes:
            rows += make(recipe, (training, golden, field), folder / f"release-{recipe.release}")
    text = table(rows)
    (folder / "README.md").write_text(readme.format(table=text))
    print(text)


def main(folder: Path, wanted: list[str]) -> None:
    """Make the releases that are ``wanted``, or all."""
    recipes = [recipe for recipe in RECIPES if not wanted or recipe.release in wanted]
    make_all(recipes, lambda digits: digits, README, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "digits", sys.argv[2:])
