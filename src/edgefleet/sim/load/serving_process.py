"""The behaviour of a release on a simulated device, and the virtual process that serves it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from edgefleet.agent.state import InstalledRelease
from edgefleet.protocol.serving import LiveStats, ModelStatus, ProveResult, ServingStatus
from edgefleet.sim.load.draws import Draws


@dataclass(frozen=True, slots=True)
class ModelBehaviour:
    """The measured behaviour of an artifact.

    ``confidences`` are 256 quantiles of the top score on field data, ascending. A live request
    draws one of them. Latencies and memory are those of the measuring machine.
    """

    proof: ProveResult
    confidences: tuple[float, ...]
    accuracy: float  # share of correct answers on field data
    latency_us_p50: int
    latency_us_p95: int
    memory_mib: int


class Laboratory(Protocol):
    """Finds the behaviour of a release."""

    def study(
        self,
        installed: InstalledRelease,
        model: bytes,
        golden: bytes,
        done: Callable[[ModelBehaviour], None],
    ) -> None:
        """Call ``done`` once, in the event loop's thread: now, if the behaviour is known."""
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """A release that receives the requests of its model."""

    installed: InstalledRelease
    behaviour: ModelBehaviour
    on_trial: bool = False
    came: int = 0  # requests from time 0 to the last probe
    stats: LiveStats = field(default_factory=LiveStats)


class VirtualServing:
    """One device's serving process: its models, and the inference requests that they receive.

    Each model receives ``requests_s`` requests per second, at equal intervals. Each request draws a
    confidence from the release's distribution, with the device's own random numbers.
    """

    __slots__ = ("_draws", "_generation", "_phase", "_pid", "_requests_s", "_served")

    def __init__(self, requests_s: float, draws: Draws) -> None:
        self._requests_s = requests_s
        self._draws = draws
        self._pid = 1
        self._served: dict[str, Served] = {}
        self._generation = 0
        self._phase = draws.uniform()

    @property
    def releases(self) -> dict[str, str]:
        """The served release of each model."""
        return {model: served.installed.release for model, served in self._served.items()}

    def serves(self, installed: InstalledRelease) -> bool:
        served = self._served.get(installed.model)
        return served is not None and _same(served.installed, installed)

    def apply(self, now: float, generation: int, wanted: Sequence[Served]) -> None:
        """Serve ``wanted`` and no other model. The counters of a new release start at zero."""
        self._generation = generation
        before, self._served = self._served, {}
        for one in wanted:
            old = before.get(one.installed.model)
            if old is not None and _same(old.installed, one.installed):
                served = replace(old, on_trial=one.on_trial)
            else:
                stats = LiveStats(memory_mib=one.behaviour.memory_mib)
                served = replace(one, came=self._requests(now), stats=stats)
            self._served[one.installed.model] = served

    def stop(self) -> None:
        """End the process. The next one has another pid."""
        self._served = {}
        self._pid += 1

    def status(self, now: float) -> ServingStatus | None:
        """The status that a probe of the process returns. None if it is not running."""
        if not self._served:
            return None
        self._served = {model: self._until(now, one) for model, one in self._served.items()}
        return ServingStatus(
            pid=self._pid,
            generation=self._generation,
            models=tuple(
                ModelStatus(
                    model=model,
                    release=one.installed.release,
                    artifact_sha256=one.installed.variant.artifact.sha256,
                    ready=True,
                    on_trial=one.on_trial,
                    stats=one.stats,
                )
                for model, one in self._served.items()
            ),
        )

    def _requests(self, now: float) -> int:
        return int(now * self._requests_s + self._phase)

    def _until(self, now: float, served: Served) -> Served:
        """Count the requests that came until ``now``."""
        total = self._requests(now)
        came, behaviour, stats = total - served.came, served.behaviour, served.stats
        if not came:
            return served
        scores = behaviour.confidences
        drawn = sum(map(scores.__getitem__, self._draws.token(came)))
        grown = LiveStats(
            requests=stats.requests + came,
            confidence_sum=stats.confidence_sum + drawn,
            confidence_count=stats.confidence_count + came,
            latency_us_p50=behaviour.latency_us_p50,
            latency_us_p95=behaviour.latency_us_p95,
            memory_mib=behaviour.memory_mib,
        )
        return replace(served, came=total, stats=grown)


def _same(one: InstalledRelease, other: InstalledRelease) -> bool:
    return (one.release, one.variant.artifact) == (other.release, other.variant.artifact)
