"""The behaviour of a release on a profile, measured on the real artifact.

For each release and profile the golden set is run once, as on a device. Then the field data (the
inputs that devices receive) is run through the same runtime, one case at a time. Simulated devices
draw from the measured distributions.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from edgefleet.agent.state import InstalledRelease
from edgefleet.base.errors import EdgefleetError, OperatorError
from edgefleet.protocol.release import Quality
from edgefleet.protocol.serving import ProveRequest, ProveResult
from edgefleet.serving.loading import load_model
from edgefleet.serving.prove import prove
from edgefleet.serving.runtime import Tensor
from edgefleet.serving.stats import confidence_sum, memory_kib
from edgefleet.sim.load.serving_process import ModelBehaviour
from edgefleet.sim.load.worker_threads import Workers

QUANTILES: Final = 256  # one random byte selects one
_UNKNOWN: Final = (0.0,) * QUANTILES


@dataclass(frozen=True, slots=True)
class FieldData:
    """Inputs that devices receive, by tensor name, and the correct label of each case.

    The first axis of every array is the case.
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor


def read_field(path: Path) -> FieldData:
    """Read an ``.npz`` with ``input.<name>`` and ``label``. Raises OperatorError."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs = {
                name.removeprefix("input."): arrays[name]
                for name in arrays.files
                if name.startswith("input.")
            }
            labels = arrays["label"]
    except (OSError, ValueError, KeyError) as error:
        raise OperatorError("setting_invalid", f"{path}: {error}.", field="field") from error
    if not inputs or any(len(array) != len(labels) for array in inputs.values()):
        raise OperatorError(
            "setting_invalid",
            f"{path} needs arrays input.<name> and label of equal length.",
            field="field",
        )
    return FieldData(inputs, labels)


def measure(
    installed: InstalledRelease, model: Path, golden: Path, field: FieldData | None
) -> ModelBehaviour:
    """Run the golden set as a device does. If it passes, also run all of ``field``.

    Without field data or class scores the release counts as one that cannot be loaded.
    """
    before_kib = memory_kib()
    proof = prove(
        ProveRequest(
            variant=installed.variant,
            golden=installed.golden,
            artifact_path=str(model),
            golden_path=str(golden),
        )
    )
    if not proof.passed:
        return _refused(proof)
    if field is None:
        return _not_loaded(f"There is no field data of the model {installed.model}.")
    if installed.quality is None:
        return _not_loaded(f"The model {installed.model} has no class scores to simulate.")
    try:
        return _in_the_field(
            installed, installed.quality, model, field, proof=proof, before_kib=before_kib
        )
    except (EdgefleetError, KeyError) as error:
        return _not_loaded(f"The release cannot be served: {error}")


class MeasuringLaboratory:
    """Measures a release at its first use, in ``threads``. ``folder`` is for temporary files.

    ``fields`` has the field data of each model. A model without any cannot be served.
    """

    def __init__(self, fields: Mapping[str, FieldData], folder: Path, threads: Workers) -> None:
        self._fields = fields
        self._folder = folder
        self._threads = threads
        self._known: dict[tuple[str, str], ModelBehaviour] = {}
        self._waiting: dict[tuple[str, str], list[Callable[[ModelBehaviour], None]]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def study(
        self,
        installed: InstalledRelease,
        model: bytes,
        golden: bytes,
        done: Callable[[ModelBehaviour], None],
    ) -> None:
        key = (installed.manifest_sha256, installed.variant.profile)
        if known := self._known.get(key):
            done(known)
        elif key in self._waiting:
            self._waiting[key].append(done)
        else:
            self._waiting[key] = [done]
            self._threads.submit(self._measure, key, installed, model, golden)

    def _measure(
        self, key: tuple[str, str], installed: InstalledRelease, model: bytes, golden: bytes
    ) -> None:
        """Runs in a worker thread."""
        paths: list[Path] = []
        for data, artifact in (
            (model, installed.variant.artifact),
            (golden, installed.golden.artifact),
        ):
            path = self._folder / f"{key[1]}-{artifact.sha256}"
            path.write_bytes(data)
            paths.append(path)
        behaviour = measure(installed, paths[0], paths[1], self._fields.get(installed.model))
        self._threads.post(partial(self._measured, key, behaviour))

    def _measured(self, key: tuple[str, str], behaviour: ModelBehaviour) -> None:
        self._known[key] = behaviour
        for done in self._waiting.pop(key):
            done(behaviour)


def _in_the_field(
    installed: InstalledRelease,
    quality: Quality,
    model: Path,
    field: FieldData,
    *,
    proof: ProveResult,
    before_kib: int,
) -> ModelBehaviour:
    loaded = load_model(model, installed.variant).model
    first = installed.variant.outputs[0].name
    inputs = {spec.name: field.inputs[spec.name] for spec in installed.variant.inputs}
    scores: list[float] = []
    took_us: list[int] = []
    right = 0
    for case, label in enumerate(field.labels):
        one = {name: np.ascontiguousarray(array[case : case + 1]) for name, array in inputs.items()}
        began = time.perf_counter_ns()
        answer, judged = loaded.run(one, [first, quality.output])
        took_us.append((time.perf_counter_ns() - began) // 1000)
        scores.append(confidence_sum(judged, quality.scores) or 0.0)
        right += int(answer.argmax() == label)
    steps = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return ModelBehaviour(
        proof=proof,
        confidences=tuple(float(score) for score in np.quantile(scores, steps)),
        accuracy=right / len(field.labels),
        latency_us_p50=int(np.quantile(took_us, 0.50)),
        latency_us_p95=int(np.quantile(took_us, 0.95)),
        memory_mib=max(1, (memory_kib() - before_kib) >> 10),
    )


def _refused(proof: ProveResult) -> ModelBehaviour:
    return ModelBehaviour(proof, _UNKNOWN, 0.0, proof.latency_us_p50, proof.latency_us_p50, 0)


def _not_loaded(detail: str) -> ModelBehaviour:
    return _refused(ProveResult(passed=False, reason="load_failed", detail=detail[:500]))
