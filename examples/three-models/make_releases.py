"""Makes the releases of the models ``detector`` and ``gauge``; the third is ``digits``.

    make models
    python examples/three-models/make_releases.py FOLDER [MODEL]

Writes FOLDER/MODEL/release-1 to release-3, and FOLDER/MODEL/field.npz with inputs as clients send
them. Run twice on one machine it writes the same bytes. Prints what was measured.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import detector
import gauge
import numpy as np
import onnx
import onnxruntime
import pictures
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

Arrays = Mapping[str, NDArray[Any]]
GOLDEN_CASES = {"detector": 32, "gauge": 200}
FIELD_CASES = {"detector": 24, "gauge": 300}
NOTES = {
    ("detector", "1"): "CenterFace as its authors published it.",
    ("detector", "2"): "The same network, half the download: weights in 16 bits.",
    ("detector", "3"): "New exposure correction.",
    ("gauge", "1"): "Baseline.",
    ("gauge", "2"): "Larger network.",
    ("gauge", "3"): "Trained on drawings of the gauge.",
}


def make_detector(folder: Path) -> None:
    network = detector.published()
    golden = pictures.draw(GOLDEN_CASES["detector"], seed=1)
    inputs = {detector.INPUT: golden.pictures}
    reference = infer(network, inputs)
    made = {
        "1": network,
        "2": detector.halved(network),
        "3": detector.with_exposure(network),
    }
    field = pictures.draw(FIELD_CASES["detector"], seed=2, noise=8.0)
    seen = {detector.INPUT: field.pictures}
    for release, model in made.items():
        write(folder, "detector", release, model, inputs, reference, golden.cells)
        show("detector", release, model, (inputs, golden.cells), (seen, field.cells))
    write_field(folder, seen, field.cells, overexposed=pictures.overexposed())


def make_gauge(folder: Path) -> None:
    field = gauge.read(FIELD_CASES["gauge"], seed=102, roughness=1.0)
    seen = {gauge.INPUT: as_pictures(field.dials)}
    for release, recipe in gauge.RECIPES.items():
        golden = gauge.read(GOLDEN_CASES["gauge"], seed=101, roughness=recipe.roughness)
        inputs = {gauge.INPUT: as_pictures(golden.dials)}
        network = gauge.trained(recipe)
        bins = network.probabilities(inputs[gauge.INPUT].reshape(len(golden.dials), -1))
        reference = {
            gauge.SCORES: bins.astype(np.float32),
            gauge.VALUE: (bins @ gauge.CENTRES[:, None]).astype(np.float32),
        }
        model = gauge.exported(network)
        write(folder, "gauge", release, model, inputs, reference, golden.bins)
        show("gauge", release, model, (inputs, golden.bins), (seen, field.bins))
    write_field(folder, seen, field.bins)


MAKERS: Mapping[str, Callable[[Path], None]] = {"detector": make_detector, "gauge": make_gauge}


def as_pictures(dials: gauge.Dials) -> NDArray[np.float32]:
    return dials.astype(np.float32).reshape(-1, 1, gauge.SIDE, gauge.SIDE)


def infer(model: onnx.ModelProto, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """All outputs, by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def write(
    folder: Path,
    model: str,
    release: str,
    graph: onnx.ModelProto,
    inputs: Arrays,
    reference: Arrays,
    labels: NDArray[np.int64],
) -> None:
    """Write one release folder."""
    place = folder / f"release-{release}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "fp32.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    arrays = {f"input.{name}": array for name, array in inputs.items()}
    arrays |= {f"output.{name}": array for name, array in reference.items()}
    np.savez_compressed(place / "golden.npz", label=labels, **arrays)
    scores = next(iter(reference))
    lines = [
        f'model = "{model}"',
        f'release = "{release}"',
        *([] if release == "1" else ['parent = "1"']),
        f'notes = "{NOTES[model, release]}"',
        '\n[golden]\nfile = "golden.npz"\nmin_accuracy = 0.90\nmin_agreement = 0.90',
        f'\n[quality]\noutput = "{scores}"\nscores = "probabilities"\nmax_confidence_drop = 0.10',
        '\n[[variant]]\nprofile = "generic_x86"\nprecision = "fp32"\nfile = "fp32.onnx"',
    ]
    (place / "release.toml").write_text("\n".join(lines) + "\n")


def write_field(
    folder: Path, inputs: Arrays, labels: NDArray[np.int64], **more: NDArray[Any]
) -> None:
    arrays = {f"input.{name}": array for name, array in inputs.items()}
    np.savez_compressed(folder / "field.npz", label=labels, **arrays, **more)


def show(
    model: str,
    release: str,
    graph: onnx.ModelProto,
    *cases: tuple[Arrays, NDArray[np.int64]],
) -> None:
    """Print accuracy and mean top score, on the golden set and in the field."""
    figures = []
    for inputs, labels in cases:
        scores = next(iter(infer(graph, inputs).values()))
        right = float(np.mean(scores.argmax(axis=1) == labels))
        figures.append(f"{right:.3f} right, top score {float(scores.max(axis=1).mean()):.3f}")
    size = len(graph.SerializeToString())
    print(f"{model} {release}: {size:,} bytes; golden {figures[0]}; field {figures[1]}", flush=True)


def main(arguments: list[str]) -> int:
    folder, *models = arguments
    for model in models or MAKERS:
        if model == "detector" and (reason := detector.missing()):
            print(reason, file=sys.stderr)
            return 2
        with threadpool_limits(1):  # the same sums in the same order, on any number of cores
            MAKERS[model](Path(folder) / model)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
