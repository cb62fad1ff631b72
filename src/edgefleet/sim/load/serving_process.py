"""The behaviour of a release on a simulated device, and the virtual process that serves it."""

from collections.abc import Callable
from dataclasses import dataclass
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


class VirtualServing:
    """One device's serving process: its release, and the inference requests it receives.

    ``requests_s`` requests arrive per second, at equal intervals. Each draws a confidence from the
    release's distribution, with the device's own random numbers.
    """

    __slots__ = (
        "_behaviour",
        "_came",
        "_draws",
        "_generation",
        "_installed",
        "_on_trial",
        "_phase",
        "_pid",
        "_requests_s",
        "_stats",
    )

    def __init__(self, requests_s: float, draws: Draws) -> None:
        self._requests_s = requests_s
        self._draws = draws
        self._pid = 1
        self._installed: InstalledRelease | None = None
        self._behaviour: ModelBehaviour | None = None
        self._generation = 0
        self._on_trial = False
        self._phase = draws.uniform()
        self._came = 0  # requests from time 0 to the last probe
        self._stats = LiveStats()

    @property
    def alive(self) -> bool:
        return self._installed is not None

    def serves(self, installed: InstalledRelease) -> bool:
        mine = self._installed
        return mine is not None and (mine.model, mine.release, mine.variant.artifact) == (
            installed.model,
            installed.release,
            installed.variant.artifact,
        )

    def swap(self, now: float, installed: InstalledRelease, behaviour: ModelBehaviour) -> None:
        """Serve ``installed`` from now on. Its counters start at zero."""
        self._installed, self._behaviour = installed, behaviour
        self._came = self._requests(now)
        self._stats = LiveStats(memory_mib=behaviour.memory_mib)

    def applied(self, generation: int, *, on_trial: bool) -> None:
        """Record the set that the process serves now."""
        self._generation, self._on_trial = generation, on_trial

    def stop(self) -> None:
        """End the process. The next one has another pid."""
        self._installed = self._behaviour = None
        self._stats = LiveStats()
        self._pid += 1

    def status(self, now: float) -> ServingStatus | None:
        """The status that a probe of the process returns. None if it is not running."""
        installed, behaviour = self._installed, self._behaviour
        if installed is None or behaviour is None:
            return None
        before, self._came = self._came, self._requests(now)
        if came := self._came - before:
            self._stats = self._more(behaviour, came)
        return ServingStatus(
            pid=self._pid,
            generation=self._generation,
            models=(
                ModelStatus(
                    model=installed.model,
                    release=installed.release,
                    artifact_sha256=installed.variant.artifact.sha256,
                    ready=True,
                    on_trial=self._on_trial,
                    stats=self._stats,
                ),
            ),
        )

    def _requests(self, now: float) -> int:
        return int(now * self._requests_s + self._phase)

    def _more(self, behaviour: ModelBehaviour, came: int) -> LiveStats:
        scores = behaviour.confidences
        drawn = sum(map(scores.__getitem__, self._draws.token(came)))
        return LiveStats(
            requests=self._stats.requests + came,
            confidence_sum=self._stats.confidence_sum + drawn,
            confidence_count=self._stats.confidence_count + came,
            latency_us_p50=behaviour.latency_us_p50,
            latency_us_p95=behaviour.latency_us_p95,
            memory_mib=behaviour.memory_mib,
        )
