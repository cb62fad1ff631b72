"""TFLite variants of one model: size, accuracy and processor time. Writes bench/out/tflite.json.

The model is the classifier of digits of tests/support/tflite_digits.py, widened to more than 10 MB:
a convolution with 128 filters and a dense layer of 1,400. Each variant runs in LiteRT with one
thread and one case; the variants take turns, and the figure is the median of the thread's processor
time, which other programs on the machine change less than time. Accuracy is that of 597 images that
were used for nothing else: one image is 0.17 points.

``python bench/tflite.py`` needs about a minute. The exit code is 1 if INT8 is not 3.9 times smaller
or loses more than one point.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from result_file import show, write

from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.recipe import DynamicInt8, Half, StaticInt8, Step, WeightInt8
from edgefleet.optimize.tflite_steps.technique import TfliteTechnique

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.tflite_digits import accuracy, digits, write_digits

FILTERS, HIDDEN, TURNS, CALIBRATION = 128, 1_400, 300, 200
STEPS: dict[str, Step] = {
    "int8 in and out": StaticInt8(activations="int8", integer_io=True),
    "int8 inside": StaticInt8(activations="int8"),
    "int16 activations": StaticInt8(activations="int16"),
    "dynamic int8": DynamicInt8(),
    "weights int8": WeightInt8(),
    "fp16": Half(),
}
WHOLE = ("int8 in and out", "int8 inside")


def runner(path: Path, image: np.ndarray[Any, Any]) -> Callable[[], float]:
    """Runs one case, and returns the seconds of processor time."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    interpreter.set_tensor(given["index"], image.astype(given["dtype"]))

    def run() -> float:
        began = time.thread_time_ns()
        interpreter.invoke()
        return (time.thread_time_ns() - began) / 1e9

    return run


def main() -> int:
    data = digits(FILTERS, HIDDEN)
    with tempfile.TemporaryDirectory() as name:
        base = write_digits(Path(name) / "fp32.tflite", batch=1, data=data)
        files = {"fp32": base}
        calibration = CalibrationData({"image": data.train[:CALIBRATION]})
        for label, step in STEPS.items():
            files[label] = Path(name) / f"{len(files)}.tflite"
            TfliteTechnique().apply(step, base, calibration, files[label])
        runs = {label: runner(path, data.test[:1]) for label, path in files.items()}
        times: dict[str, list[float]] = {label: [] for label in files}
        for _ in range(TURNS):
            for label, run in runs.items():
                times[label].append(run())
        rows = {
            label: {
                "mb": path.stat().st_size / 1e6,
                "smaller": base.stat().st_size / path.stat().st_size,
                "accuracy": accuracy(path),
                "ms": 1e3 * median(times[label]),
                "faster": median(times["fp32"]) / median(times[label]),
            }
            for label, path in files.items()
        }
    good = True
    for label, found in rows.items():
        limits = {"smaller": (">=", 3.9)} if label in WHOLE else {}
        if label in WHOLE:
            limits["accuracy"] = (">=", rows["fp32"]["accuracy"] - 0.01)
        good = show(label, found, limits) and good
    result = {"filters": FILTERS, "hidden": HIDDEN, "cases": len(data.test), "rows": rows}
    print(f"{write('tflite', result)}: written")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
