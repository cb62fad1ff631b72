"""The optimiser on real models. Writes bench/out/optimize.json.

Each case is one call of ``edgefleet.optimize.optimize`` on a model that bench/optimize_models.py
made. The table says for each candidate what it saves, what it keeps, or why it is refused. The
refusals that must happen are checked: the exit code is 1 if one did not.

``python bench/optimize.py --only lite0`` runs one case; results of earlier calls stay in the file.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from detector_graph import DECODE
from msgspec import to_builtins
from optimize_models import BENCH, CACHE, PYTHON, images_of
from result_file import path_of, write

from edgefleet.base.errors import EdgefleetError
from edgefleet.optimize import optimize
from edgefleet.optimize.judge import judge
from edgefleet.optimize.measurement import Budget
from edgefleet.optimize.outcome import ProfileOutcome, Tried
from edgefleet.optimize.recipe import Distil, DynamicInt8, Half, Prune, Recipe, Simplify, StaticInt8
from edgefleet.optimize.torch_steps.trainer import TorchModel, TorchTrainer

PROFILE = "generic_x86"
U8 = StaticInt8()
CASES = ("lite0", "detector", "cnn", "wide", "transformer", "wrong_calibration", "student")


@dataclass(frozen=True)
class Case:
    """A call of the optimiser. ``must`` has, by name of a recipe, why it must be refused.

    The name ``call`` is that of the call itself.
    """

    model: str
    task: str
    calibration: np.ndarray
    inputs: np.ndarray
    truth: np.ndarray
    recipes: Sequence[Recipe]
    must: Mapping[str, tuple[str, ...]]
    trainer: TorchTrainer | None = None


def chain(*steps: object) -> Recipe:
    return Recipe(runtime="onnx", steps=steps)


def make(name: str, cases: int) -> Case:
    """The case ``name``, judged on so many cases."""
    if name == "lite0":
        data = np.load(CACHE / "lite0.npz")
        given, wanted = data["image"], data["label"]
        recipes = (chain(U8), chain(StaticInt8(activations="int8")), chain(Half()),
                   chain(DynamicInt8()), chain(StaticInt8(per_channel=False)))  # fmt: skip
        must = {"dynamic": ("slower", "accuracy_lost", "accuracy_unproven")}
        return Case("lite0", "classification", given[::5], given, wanted, recipes, must)
    if name == "detector":
        data = np.load(CACHE / "detector.npz")
        nodes = onnx.load(CACHE / "detector.onnx", load_external_data=False).graph.node
        decode = tuple(node.name for node in nodes if node.name.startswith(DECODE))
        recipes = (chain(StaticInt8(keep_float=decode)), chain(U8), chain(Half()))
        must = {"boxes": ("accuracy_lost", "accuracy_unproven")}
        return Case("detector", "detection", data["image"][::4], data["image"], data["boxes"],
                    recipes, must)  # fmt: skip
    train, _ = images_of("train")
    given, wanted = (one[:cases] for one in images_of("t10k"))
    calibration = train[:256]
    if name == "wrong_calibration":  # pixels as in the file, not normalised
        return Case("cnn", "classification", calibration * 0.353 * 255, given, wanted,
                    (chain(U8),), {"call": ("calibration_invalid",)})  # fmt: skip
    trainer = trainer_of(name) if name == "cnn" else None
    recipes: tuple[Recipe, ...] = (chain(U8), chain(Half()))
    must = {}
    if name == "cnn":
        pruned = Prune(share=0.5, epochs=1)
        recipes = (
            chain(U8), chain(Simplify(), U8), chain(StaticInt8(activations="int8")), chain(Half()),
            chain(DynamicInt8()), chain(pruned), chain(pruned, U8), chain(Prune(epochs=0)),
            chain(Prune(share=0.8, structure="weights", epochs=1)),
        )  # fmt: skip
        must = {"untrained": ("accuracy_lost",), "dynamic": ("slower",),
                "again": ("identical",)}  # fmt: skip
    if name == "transformer":
        recipes = (chain(U8), chain(DynamicInt8(operators=("MatMul",))), chain(Half()))
    return Case(name, "classification", calibration, given, wanted, recipes, must, trainer)


def trainer_of(name: str) -> TorchTrainer:
    """Trains on a part of Fashion-MNIST: EDGEFLEET_SUBSET images."""
    os.environ["PYTHONPATH"] = str(BENCH)
    os.environ.setdefault("EDGEFLEET_SUBSET", "6000")
    given, _ = images_of("t10k")
    source = TorchModel(f"fashion_torch:{name}", {"image": given[:4]}, python=PYTHON)
    return TorchTrainer(source, "fashion_torch:train")


def kind_of(recipe: Recipe) -> tuple[str, ...]:
    """The names under which ``Case.must`` may have it."""
    match recipe.steps:
        case (DynamicInt8(operators=()),):
            return ("all", "dynamic")
        case (Prune(epochs=0),):
            return ("all", "untrained")
        case (StaticInt8(activations="uint8", keep_float=()),):
            return ("all", "boxes")
        case (Simplify(), StaticInt8()):
            return ("all", "again")
        case _:
            return ("all",)


def called(name: str, case: Case, seconds: float) -> ProfileOutcome:
    """Optimise for the profile of the benchmark."""
    with tempfile.TemporaryDirectory(prefix="edgefleet-bench-") as folder:
        work = Path(folder)
        np.savez(work / "calibration.npz", image=case.calibration)
        truth = {"truth.boxes": case.truth} if case.task == "detection" else {"y": case.truth}
        np.savez(work / "test.npz", image=case.inputs, **truth)
        return optimize(
            CACHE / f"{case.model}.onnx", profiles=[PROFILE], calibration=work / "calibration.npz",
            evaluate=work / "test.npz", model=name, release="1", out=work / "release",
            task=case.task, cache_dir=CACHE / "steps", trainer=case.trainer,
            recipes=case.recipes, budget_s=seconds,
            progress=lambda line: print(f"  {line}", flush=True),
        ).profiles[0]  # fmt: skip


def run(name: str, case: Case, seconds: float) -> dict[str, object]:
    """Optimise, print the table, and check the refusals."""
    began = time.monotonic()
    try:
        outcome = called(name, case, seconds)
    except EdgefleetError as error:
        wanted = case.must.get("call", ())
        print(f"\n{name}: {error}")
        missed = [] if error.code in wanted else [f"{error.code}, not {' or '.join(wanted)}"]
        return {"seconds": time.monotonic() - began, "missed": missed, "text": str(error)}
    print(f"\n{name}: {outcome.baseline.size_bytes:,} bytes, metric {outcome.baseline.value:.4f}, "
          f"{len(case.inputs)} cases; {outcome.text}")  # fmt: skip
    for one in outcome.tried:
        print(f"  {line_of(one)}")
    missed = list(unmet(case, outcome))
    for words in missed:
        print(f"  MISSED: {words}")
    tight = Budget(memory_bytes=1 << 20)
    over = [
        judge(outcome.baseline, one.judgement.candidate, tight).refused
        for one in outcome.tried if one.judgement.candidate is not None
    ]  # fmt: skip
    return {
        "seconds": time.monotonic() - began, "cases": len(case.inputs), "missed": missed,
        "refused_over_1_MiB_of_memory": sorted({str(one) for one in over}),
        "baseline": small(to_builtins(outcome.baseline)),
        "tried": [small(to_builtins(one)) for one in outcome.tried], "text": outcome.text,
    }  # fmt: skip


def line_of(one: Tried) -> str:
    verdict = str(one.judgement.refused or "qualifies")
    kept = ""
    if one.judgement.accuracy is not None:
        found = one.judgement.accuracy
        kept = (f"{found.candidate:.4f} [{found.difference.low:+.4f}, "
                f"{found.difference.high:+.4f}]")  # fmt: skip
    return (f"{one.recipe.name:34} {one.judgement.smaller:6.2f}x smaller "
            f"{one.judgement.faster:6.2f}x faster  {kept:28} {verdict}")  # fmt: skip


def unmet(case: Case, outcome: ProfileOutcome) -> Sequence[str]:
    """The refusals that did not happen."""
    found = ["the call was not refused"] if "call" in case.must else []
    for name, reasons in case.must.items():
        if name == "call":
            continue
        meant = [one for one in outcome.tried if name in kind_of(one.recipe)]
        if not meant:
            found.append(f"{name} was not tried")
        found += [
            f"{one.recipe.name} ({name}): {one.judgement.refused}, not {' or '.join(reasons)}"
            for one in meant if str(one.judgement.refused) not in reasons
        ]  # fmt: skip
    return found


def small(found: object) -> object:
    """Without the scores of single cases."""
    if isinstance(found, dict):
        return {key: small(value) for key, value in found.items() if key not in ("cases", "units")}
    return [small(one) for one in found] if isinstance(found, list) else found


def distillation(seeds: int, epochs: int) -> dict[str, object]:
    """Students of one architecture, with and without a teacher, on the same part of the data.

    The interval is that of the mean of the paired differences (t distribution, 95 %).
    """
    from optimize_models import run as answers  # noqa: PLC0415

    given, wanted = images_of("t10k")
    trainer, rows = trainer_of("cnn"), []
    for seed in range(seeds):
        pair = []
        for share in (1.0, 0.3):  # of the right answers in the loss: all, or most to the teacher
            made = CACHE / f"student-{seed}-{share}.onnx"
            one = TorchTrainer(trainer.source, trainer.train_function, seed=seed)
            one.train(Distil(student="fashion_torch:student", epochs=epochs, hard_share=share),
                      CACHE / "cnn.onnx", made)  # fmt: skip
            pair.append(float((answers(made, {"image": given})[0].argmax(1) == wanted).mean()))
        rows.append(pair)
        print(f"  seed {seed}: alone {pair[0]:.4f}, with teacher {pair[1]:.4f}", flush=True)
    shutil.copy(made, CACHE / "student.onnx")
    gains = np.array([with_teacher - alone for alone, with_teacher in rows])
    t = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}.get(seeds, 2.0)
    half = t * gains.std(ddof=1) / np.sqrt(seeds) if seeds > 1 else float("nan")
    print(f"  gain {gains.mean():+.4f} [{gains.mean() - half:+.4f}, {gains.mean() + half:+.4f}]")
    return {"seeds": seeds, "epochs": epochs, "images": int(os.environ["EDGEFLEET_SUBSET"]),
            "accuracies": rows, "gain": float(gains.mean()),
            "interval": [float(gains.mean() - half), float(gains.mean() + half)]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=(*CASES, "distillation"), action="append")
    parser.add_argument("--cases", type=int, default=2_000, help="of Fashion-MNIST's 10,000")
    parser.add_argument("--seconds", type=float, default=900, help="for each case")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10, help="of a student")
    asked = parser.parse_args()
    file = path_of("optimize")
    result = json.loads(file.read_text()) if file.exists() else {}
    names = asked.only or ("distillation", *CASES)
    for name in names:
        if name == "distillation":
            result[name] = distillation(asked.seeds, asked.epochs)
        elif not (CACHE / f"{name}.onnx").exists() and name != "wrong_calibration":
            print(f"{name}: not made yet, see bench/optimize_models.py")
            continue
        else:
            result[name] = run(name, make(name, asked.cases), asked.seconds)
        result["models"] = json.loads((CACHE / "models.json").read_text())
        print(f"  {write('optimize', result)}", flush=True)
    sys.exit(any(result[name].get("missed") for name in names if name in result))


if __name__ == "__main__":
    main()
