"""The reports of simulated devices about a release: golden set and served requests.

Counters are functions of the number of requests, so they only grow. The panel sends sketches
and has its own ways; all others send the same means, and so cost no more than a constant.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

import msgspec

from edgefleet.agent.cost_figures import Board, CostFigures, CostWindows
from edgefleet.agent.state import AgentState, InstalledRelease, ModelSoft, QualityWindow, Windows
from edgefleet.protocol.bins import CONFIDENCE_BINS, bucket
from edgefleet.protocol.device import Refusal, Sketches
from edgefleet.protocol.serving import LiveStats, ModelStatus, ProveResult, ServingStatus
from edgefleet.sim.virtual.scenario import NEW, OLD_TRUTH, Truth

_P50_US, _P95_US, _MEMORY_MIB = 400, 900, 40
CPU_S: Final = 0.0005  # per request
_IDLE_C: Final = 45.0
_DRAIN_PERCENT_H: Final = 2.0
_LATE: Final = 10  # one request in so many takes as long as the 95th percentile
_CLASSES: Final = 10
_WINDOW: Final = 100  # requests in a full window, as the agent counts them


def truth_of(release: str, truth: Truth) -> Truth:
    """The true quality of ``release``. ``truth`` is the quality of the new release."""
    return truth if release == NEW else truth.previous or OLD_TRUTH


@lru_cache(maxsize=64)
def proof(release: str, truth: Truth, least: float) -> ProveResult:
    """The result of the golden set on every device. ``least`` is the required accuracy."""
    accuracy = truth_of(release, truth).accuracy
    if accuracy < least:
        detail = f"{accuracy:g} of {least:g}."
        return ProveResult(passed=False, reason="golden_failed", detail=detail)
    return ProveResult(passed=True, accuracy=accuracy, agreement=1.0, cases=100)


def reminded(
    state: AgentState, installed: Iterable[InstalledRelease], truths: Mapping[str, Truth]
) -> AgentState:
    """An agent that wakes, with what it knows of the requests that it served while it was idle.

    ``installed`` are its confirmed releases. ``truths`` are those of the new releases, by model.
    """
    models: dict[str, ModelSoft] = {}
    served: list[ModelStatus] = []
    for one in installed:
        sha256, truth = one.variant.artifact.sha256, truths.get(one.model, OLD_TRUTH)
        windows, mine = _remembered(one.model, one.release, sha256, truth)
        models[one.model] = ModelSoft(windows=windows, costs=_costs(one.release, truth))
        served.append(mine)
    if not served:
        return state
    status = ServingStatus(pid=1, models=tuple(served))
    soft = msgspec.structs.replace(state.soft, models=models, serving=status)
    return msgspec.structs.replace(state, soft=soft)


@lru_cache(maxsize=64)
def _remembered(model: str, release: str, sha256: str, truth: Truth) -> tuple[Windows, ModelStatus]:
    own = truth_of(release, truth)
    refused = int(_WINDOW * own.refused)
    requests = _WINDOW - refused
    stats = plain(own, requests, int(requests * own.errors), refused=refused)
    full = QualityWindow(
        release=release,
        since=0.0,
        requests=stats.requests,
        timed=stats.requests,
        cpu_s=stats.cpu_s,
        errors=stats.errors,
        refused=stats.refused,
        confidence_sum=stats.confidence_sum,
        confidence_count=stats.confidence_count,
        latency_us_p95=stats.latency_us_p95,
    )
    mine = ModelStatus(
        model=model, release=release, artifact_sha256=sha256, ready=True, stats=stats
    )
    return Windows(full=full), mine


def _costs(release: str, truth: Truth) -> CostWindows:
    own = truth_of(release, truth)
    figures = CostFigures(
        release=release,
        requests=_WINDOW,
        memory_mib_h=own.leaks_mib_h,
        temperature_c=_IDLE_C + own.heats,
        throttled=0.0,
        battery_percent_h=_DRAIN_PERCENT_H,
    )
    return CostWindows(full=figures)


def board(heats: float, run_s: float) -> Board:
    """The sensors of a board on battery, ``run_s`` after the start of the simulation."""
    left = 100.0 - _DRAIN_PERCENT_H * run_s / 3600
    return Board(temperature_c=_IDLE_C + heats, is_throttled=False, battery_percent=max(0.0, left))


def plain(own: Truth, requests: int, errors: int, *, refused: int = 0) -> LiveStats:
    """Means alone, alike on all devices."""
    return LiveStats(
        requests=requests,
        errors=errors,
        confidence_sum=own.confidence * requests,
        confidence_count=requests,
        latency_us_p50=_P50_US,
        latency_us_p95=int(_P95_US * own.latency),
        cpu_s=CPU_S * own.cpu * requests,
        memory_mib=_MEMORY_MIB,
        refused=refused,
        refusals={Refusal.UNKNOWN_INPUT: refused} if refused else {},
    )


def sketched(
    own: Truth, requests: int, errors: int, luck: float, *, refused: int = 0, run_s: float = 0.0
) -> LiveStats:
    """With histograms; ``luck`` makes the device a little surer and slower than others, or less.

    ``run_s`` is the time for which its process has run the release.
    """
    mean = min(1.0, max(0.0, own.confidence + 0.02 * (luck - 0.5)))
    p95_us = int(_P95_US * own.latency * (0.8 + 0.4 * luck))
    late, moved = requests // _LATE, int(requests * own.drift)
    stayed = requests - moved
    latency = {bucket(_P50_US): requests - late, bucket(p95_us): late}
    confidence = [0] * CONFIDENCE_BINS
    confidence[min(CONFIDENCE_BINS - 1, int(mean * CONFIDENCE_BINS))] = requests
    classes = [(stayed + place) // _CLASSES for place in range(_CLASSES)]
    return LiveStats(
        requests=requests,
        errors=errors,
        confidence_sum=mean * requests,
        confidence_count=requests,
        latency_us_p50=_P50_US,
        latency_us_p95=p95_us,
        cpu_s=CPU_S * own.cpu * (0.9 + 0.2 * luck) * requests,
        process_kib=int(1024 * (_MEMORY_MIB + own.leaks_mib_h * run_s / 3600)),
        memory_mib=_MEMORY_MIB,
        sketches=Sketches(
            latency=latency,
            confidence=tuple(confidence),
            classes=(*classes, moved),
            inputs=(requests,),
        ),
        refused=refused,
        refusals={Refusal.UNKNOWN_INPUT: refused} if refused else {},
    )
