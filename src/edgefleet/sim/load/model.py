"""How a release behaves on a simulated device, and the virtual process that serves it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgefleet.agent.state import InstalledRelease
from edgefleet.protocol.serving import LiveStats, ProveResult, ServingStatus
from edgefleet.sim.load.draws import Draws


@dataclass(frozen=True, slots=True)
class ModelBehaviour:
    """What an artifact was seen to do.

    ``confidences`` are 256 quantiles of the top score over what devices see, rising; a live request
    draws one of them. Latencies and memory are those of the machine that measured.
    """

    proof: ProveResult
    confidences: tuple[float, ...]
    accuracy: float  # share of right answers on what devices see
    latency_us_p50: int
    latency_us_p95: int
    memory_mib: int


class Laboratory(Protocol):
    """Knows, or finds out, how a release behaves."""

    def study(
        self,
        installed: InstalledRelease,
        model: bytes,
        golden: bytes,
        done: Callable[[ModelBehaviour], None],
    ) -> None:
        """Call ``done`` in the world's thread, once, at once where it is known already."""
        ...


class VirtualServing:
    """One device's serving process: its release, and the requests that people send it.

    Requests come evenly, ``requests_s`` a second. Each has a confidence from its release's own
    distribution, drawn by the device's own chance.
    """

    __slots__ = (
        "_behaviour",
        "_came",
        "_draws",
        "_installed",
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
        self._phase = draws.uniform()
        self._came = 0  # requests up to the last look, since time 0
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
        """Serve ``installed`` from now on; its counters start at nothing."""
        self._installed, self._behaviour = installed, behaviour
        self._came = self._requests(now)
        self._stats = LiveStats(memory_mib=behaviour.memory_mib)

    def stop(self) -> None:
        """The process ends; a later one has another pid."""
        self._installed = self._behaviour = None
        self._stats = LiveStats()
        self._pid += 1

    def status(self, now: float) -> ServingStatus | None:
        """What a look at the process says; None when there is none."""
        installed, behaviour = self._installed, self._behaviour
        if installed is None or behaviour is None:
            return None
        before, self._came = self._came, self._requests(now)
        if came := self._came - before:
            self._stats = self._more(behaviour, came)
        return ServingStatus(
            pid=self._pid,
            ready=True,
            model=installed.model,
            release=installed.release,
            artifact_sha256=installed.variant.artifact.sha256,
            stats=self._stats,
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
