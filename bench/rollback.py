"""The time of a rollback to the release that stays loaded: from the order to the first answer.

``python bench/rollback.py`` starts a serving process with a client in a loop, swaps a release in by
a trial, and takes it back: in the trial, after its confirmation, and after its confirmation without
the previous release in memory. It prints the median and the largest time in milliseconds of each,
of ``--runs``, for a small model and one of 100 MiB, and writes bench/out/rollback.json. The exit
code is 1 if a median to a loaded release is above 50 ms, or if a request failed.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from edgefleet.protocol.serving import ServedModel  # noqa: E402 - after the path
from support.asking import Asker, digits  # noqa: E402 - after the path
from support.serving_process import ServingProcess, serving  # noqa: E402 - after the path
from support.tiny_models import TinyModel, classifier  # noqa: E402 - after the path

OUT = Path(__file__).parent / "out" / "rollback.json"
MOST_MS = 50.0
SIZES = {"small": 0, "100 MiB": 100}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    result: dict[str, object] = {}
    is_good = True
    for size, mib in SIZES.items():
        with tempfile.TemporaryDirectory(prefix="edgefleet-rollback-") as folder:
            measured, faults = measure(Path(folder), mib, runs)
        for case, times in measured.items():
            median, most = statistics.median(times), max(times)
            result[f"{size}, {case}"] = {"median_ms": round(median, 1), "max_ms": round(most, 1)}
            print(f"{size:8} {case:42} median {median:8.1f} ms  max {most:8.1f} ms")
            is_good = is_good and (median <= MOST_MS or case == _LOADED_AGAIN)
        print(f"{size:8} failed requests: {len(faults)}")
        is_good = is_good and not faults
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if is_good else 1


_LOADED_AGAIN = "after the confirmation, loaded again"


def measure(folder: Path, mib: int, runs: int) -> tuple[dict[str, list[float]], list[str]]:
    """Milliseconds of each kind of rollback, and the requests that failed."""
    models = {
        name: classifier(folder / f"{name}.onnx", seed=seed, ballast_mib=mib)
        for seed, name in enumerate("ab")
    }
    times: dict[str, list[float]] = {}
    with serving(folder) as process:
        process.apply(wanted(models["a"], "a"))
        with Asker(process.address, digits(models)) as asker:
            for _ in range(runs):
                process.apply(wanted(models["a"], "a", models["b"]))
                times.setdefault("in the trial", []).append(back(process, asker, models["a"]))
                confirm(process, models)
                case = "after the confirmation, still loaded"
                times.setdefault(case, []).append(back(process, asker, models["a"]))
                confirm(process, models)
                process.apply(wanted(models["b"], "b", models["b"]))  # a candidate frees it
                process.apply(wanted(models["b"], "b"))
                times.setdefault(_LOADED_AGAIN, []).append(back(process, asker, models["a"]))
        return times, asker.faults


def confirm(process: ServingProcess, models: dict[str, TinyModel]) -> None:
    process.apply(wanted(models["a"], "a", models["b"]))
    process.apply(wanted(models["b"], "b"))


def wanted(model: TinyModel, release: str, trial: TinyModel | None = None) -> ServedModel:
    return ServedModel(
        model="digits",
        confirmed=model.served(release),
        trial=None if trial is None else trial.served("b"),
    )


def back(process: ServingProcess, asker: Asker, model: TinyModel) -> float:
    """Order the release ``a``. Milliseconds until a client gets its first answer."""
    asker.wait_for_answers(3)
    seen = len(asker.answers)
    began = time.perf_counter()
    order = threading.Thread(target=process.apply, args=(wanted(model, "a"),))
    order.start()
    while "a" not in asker.answers[seen:]:
        time.sleep(0.0005)
    took_ms = (time.perf_counter() - began) * 1_000
    order.join()
    return took_ms


if __name__ == "__main__":
    sys.exit(main())
