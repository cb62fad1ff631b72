"""Measures candidates in child processes: answers, memory, sizes, and latency of all together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from edgefleet.optimize.array_files import arrays_digest, read_arrays
from edgefleet.optimize.building import Built
from edgefleet.optimize.cache import Cache, key_of
from edgefleet.optimize.child import ChildLimits, run_child
from edgefleet.optimize.evaluation_data import Arrays
from edgefleet.optimize.latency_process import LatencyAnswer, LatencyRequest
from edgefleet.optimize.limits import LATENCY_LEAST_RUNS, LATENCY_RUNS, LATENCY_S
from edgefleet.optimize.machine import machine_facts
from edgefleet.optimize.measurement import Latency
from edgefleet.optimize.profiles import Profile
from edgefleet.optimize.run_process import RunAnswer, RunRequest
from edgefleet.optimize.transfer_size import compressed_size, delta_size
from edgefleet.protocol.release import Artifact, Variant
from edgefleet.serving.prove import run_batch
from edgefleet.serving.runtime import named_runtime

_RUN: Final = "edgefleet.optimize.run_process"
_LATENCY: Final = "edgefleet.optimize.latency_process"
_REVISION: Final = "1"  # of the measurements and their method


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One candidate on the evaluation data. ``outputs`` are mapped from files."""

    built: Built
    outputs: Arrays
    outputs_digest: str
    peak_memory_bytes: int
    compressed_bytes: int
    delta_bytes: int | None
    batch: int


@dataclass(frozen=True, slots=True)
class Measurer:
    """Measures candidates on one profile. ``earlier`` is the artifact that its devices have."""

    cache: Cache
    profile: Profile
    inputs_folder: Path  # the evaluation data, as files
    inputs_digest: str
    threads: int = 1
    earlier: Path | None = None
    _empty: dict[str, int] = field(default_factory=dict)

    def run(self, built: Built, limits: ChildLimits) -> RunFacts:
        """Run the candidate at the profile's batch. Raises the errors of the model."""
        key = key_of("run", artifact=built.sha256, **self._conditions(built.recipe.runtime))

        def fill(folder: Path) -> None:
            empty = self._peak_without_model(built, limits)
            peak = self._child(built, folder / "outputs", limits).peak_memory_bytes
            facts = {
                "peak_memory_bytes": max(0, peak - empty),
                "compressed_bytes": compressed_size(built.path),
                "outputs_digest": arrays_digest(read_arrays(folder / "outputs")),
            }
            (folder / "facts.json").write_text(json.dumps(facts))

        folder = self.cache.entry(key, fill)
        facts: Mapping[str, Any] = json.loads((folder / "facts.json").read_text())
        return RunFacts(
            built=built,
            outputs=read_arrays(folder / "outputs"),
            delta_bytes=self._delta(built),
            batch=run_batch(self.variant(built)),
            **facts,
        )

    def latencies(
        self, candidates: Sequence[Built], limits: ChildLimits, *, seconds: float = LATENCY_S
    ) -> tuple[Latency, ...]:
        """The latency of each, interleaved. All have the same runtime.

        Found again only for the same set of candidates: a figure of another run says little.
        """
        runtime = candidates[0].recipe.runtime
        key = key_of(
            "latency",
            artifacts=[one.sha256 for one in candidates],
            machine=_machine(),
            **self._conditions(runtime),
        )
        request = LatencyRequest(
            variants=tuple(map(self.variant, candidates)),
            models=tuple(str(one.path.absolute()) for one in candidates),
            inputs=str(self.inputs_folder.absolute()),
            threads=self.threads,
            runs=LATENCY_RUNS,
            least=LATENCY_LEAST_RUNS,
            seconds=seconds,
        )

        def fill(folder: Path) -> None:
            answer = run_child(_LATENCY, request, LatencyAnswer, limits, what="Measuring latency")
            rows = [[one.p50_s, one.p10_s, one.runs, *one.spread_s] for one in answer.latencies]
            (folder / "latencies.json").write_text(json.dumps(rows))

        rows = json.loads((self.cache.entry(key, fill) / "latencies.json").read_text())
        return tuple(
            Latency(p50_s=p50, p10_s=p10, runs=runs, spread_s=tuple(spread))
            for p50, p10, runs, *spread in rows
        )

    def variant(self, built: Built) -> Variant:
        """The candidate as the entry of a manifest."""
        return Variant(
            profile=self.profile.name,
            runtime=built.recipe.runtime,
            precision=built.recipe.precision,
            artifact=Artifact(sha256=built.sha256, size_bytes=built.size_bytes),
            inputs=built.facts.inputs,
            outputs=built.facts.outputs,
            max_batch=self.profile.max_batch,
            memory_limit_mib=self.profile.memory_limit_mib,
        )

    def _conditions(self, runtime: str) -> dict[str, Any]:
        return {
            "runtime": runtime,
            "versions": _versions(runtime),
            "data": self.inputs_digest,
            "batch": self.profile.max_batch,
            "profile": self.profile.name,
            "threads": self.threads,
            "revision": _REVISION,
        }

    def _child(self, built: Built, outputs: Path | None, limits: ChildLimits) -> RunAnswer:
        request = RunRequest(
            variant=self.variant(built),
            model=str(built.path.absolute()) if outputs else "",
            inputs=str(self.inputs_folder.absolute()),
            outputs=str(outputs.absolute()) if outputs else "",
            threads=self.threads,
        )
        return run_child(_RUN, request, RunAnswer, limits, what="Running the candidate")

    def _peak_without_model(self, built: Built, limits: ChildLimits) -> int:
        """The peak of a process that loads no model, the same for all candidates of a runtime."""
        runtime = built.recipe.runtime
        if runtime not in self._empty:
            self._empty[runtime] = self._child(built, None, limits).peak_memory_bytes
        return self._empty[runtime]

    def _delta(self, built: Built) -> int | None:
        if self.earlier is None:
            return None
        earlier = self.earlier

        def fill(folder: Path) -> None:
            (folder / "delta.json").write_text(json.dumps(delta_size(built.path, earlier)))

        key = key_of("delta", artifact=built.sha256, earlier=_file_key(earlier))
        found: int = json.loads((self.cache.entry(key, fill) / "delta.json").read_text())
        return found


def _file_key(path: Path) -> list[object]:
    known = path.stat()
    return [str(path.resolve()), known.st_size, known.st_mtime_ns]


@cache
def _versions(runtime: str) -> Mapping[str, str]:
    return dict(named_runtime(runtime).versions())


@cache
def _machine() -> str:
    """The CPU of this machine: latencies of another one say nothing."""
    facts = machine_facts()
    return f"{facts['architecture']} {facts.get('cpu', '')}".strip()
