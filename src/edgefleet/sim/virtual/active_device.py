"""Active devices: the state of the real agent core, and of the process and disk around it."""

import math
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Final, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from edgefleet.agent.cost_figures import Board
from edgefleet.agent.state import AgentState, InstalledRelease, SlotName
from edgefleet.protocol.labels import LabelReport
from edgefleet.protocol.serving import LiveStats, ModelStatus, ServingStatus
from edgefleet.protocol.shadow import ShadowStatus
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual import telemetry as figures
from edgefleet.sim.virtual.labelling import Labelled, Stint, noted, report
from edgefleet.sim.virtual.scenario import MODELS, NEW, OLD_TRUTH, Span, Truth

QUEUED: Final = 32  # requests that wait for a release; more are refused

_NEVER: Final = (math.inf, math.inf)


class Traffic(NamedTuple):
    """Times, as begin and end, at which the requests of all devices differ, and their labels."""

    outage: Span = _NEVER  # all requests fail
    pause: Span = _NEVER  # there are no requests
    labelled: Labelled = Labelled()


_Luck = TypeVar("_Luck", float, npt.NDArray[np.float64])
_GOLDEN_RATIO: Final = 0.618034


def fates(luck: npt.NDArray[np.float64], truths: Mapping[str, Truth]) -> npt.NDArray[np.intp]:
    """A number for each luck. Equal numbers mean that all releases behave alike.

    ``truths`` are those of the new releases, by model.
    """
    number = np.zeros(len(luck), np.intp)
    for model, truth in truths.items():
        edges = np.sort([*np.cumsum(shares_of(truth)), 1 - truth.late_fails])
        number *= len(edges) + 1
        number += np.digitize(luck_with(model, luck), edges)
    return number


def luck_with(model: str, luck: _Luck) -> _Luck:
    """The luck of a device with the releases of one model, from its ``luck``."""
    place = MODELS.index(model)
    return (luck + place * _GOLDEN_RATIO) % 1.0 if place else luck


class Served(NamedTuple):
    """One model of a serving process. ``installed`` is the release that requests go to."""

    installed: InstalledRelease | None
    incumbent: InstalledRelease | None  # loaded beside a release in trial
    on_trial: bool
    since: float
    ended: str = ""  # the worker of the trial ended by itself
    shadow: InstalledRelease | None = None  # a candidate that answers no caller
    shadow_share: float = 0.0  # of the requests that it answers, too
    shadow_since: float = 0.0


class ActiveDevice:
    """One active device, or several (``rows``) that are equal in every attribute here.

    A core is a pure function, so one step serves all of these devices. An event for only some of
    them splits the group. ``stored`` is the state on their disks. ``life`` grows with every power
    cut, so that no event of an earlier life reaches a later one. ``luck`` in [0, 1] is fixed, and
    decides how the new releases behave on these devices. Nothing fails with a luck of 1.
    """

    __slots__ = (
        "bytes_s", "came", "life", "luck", "one_model", "parts", "pid", "pointer", "pushed_at",
        "requests_s", "row", "rows", "served", "skew", "state", "stays", "stints",
        "stored", "timer_at",
    )  # fmt: skip

    def __init__(self, rows: Rows, state: AgentState, luck: float) -> None:
        self.rows = rows  # ascending
        self.row = int(rows[0])
        self.parts: tuple[
            ActiveDevice, ...
        ] = ()  # the groups after a split; then only these are used
        self.state = self.stored = state
        self.luck = luck
        self.life = 0
        self.pid = 1
        self.skew = 0.0  # the device's clock minus the true time, in seconds
        self.timer_at = self.pushed_at = float("inf")
        self.one_model = False  # the agent has one model: it sends protocol 2
        # By model; empty while the process does not run. Dicts are never changed in place: groups
        # share them.
        self.served: dict[str, Served] = {}
        self.pointer: dict[str, SlotName] = {}
        self.requests_s = 0.0
        self.bytes_s = 1.0
        self.came: dict[str, float] = {}  # by model: bytes of a broken download
        self.stints: tuple[Stint, ...] = ()  # of its process, if its answers get labels
        self.stays = False  # sends telemetry all the time, and so never becomes idle

    def part(self, rows: tuple[Rows, ...]) -> "tuple[ActiveDevice, ...]":
        """Split the group into one group for each of ``rows``."""
        parts: list[ActiveDevice] = []
        for mine in rows:
            part = copy(self)
            part.rows, part.row = mine, int(mine[0])
            parts.append(part)
        self.parts = tuple(parts)
        return self.parts

    def whole(self) -> "Iterator[ActiveDevice]":
        """The group itself, or the groups after its splits."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.whole()

    def true_time(self, at: float) -> float:
        """The first true time at which the device's clock shows ``at`` or later."""
        true = at - self.skew
        while true + self.skew < at:  # rounding: by the device's clock it would be too early
            true = math.nextafter(true, math.inf)
        return true

    def status(
        self,
        now: float,
        truths: Mapping[str, Truth],
        traffic: Traffic = Traffic(),  # noqa: B008 - frozen
        *,
        crash: bool = True,
    ) -> ServingStatus | None:
        """The status that a probe of the serving process returns. None if it is not running.

        With ``crash`` a release that crashes has crashed by now: in trial its worker has ended,
        otherwise the process.
        """
        for model, one in self.served.items() if crash else ():
            if one.installed and one.installed.release == NEW:
                if not _crashed(luck_with(model, self.luck), truths[model]):
                    continue
                if not one.on_trial:
                    self.end_process()
                    break
                ended = one._replace(installed=one.incumbent, ended="The worker crashed.")
                self.served = self.served | {model: ended}
        if not self.served:
            return None
        models = tuple(
            [self._model(model, one, now, truths, traffic) for model, one in self.served.items()]
        )
        return ServingStatus(
            pid=self.pid, models=models, labels=self._labels(now, truths, traffic.labelled)
        )

    def board(self, run_s: float, truths: Mapping[str, Truth]) -> Board | None:
        """The readings of the sensors. None for a device that sends no telemetry all the time."""
        if not self.stays:
            return None
        served = ((model, one.installed) for model, one in self.served.items() if one.installed)
        heats = sum(
            figures.truth_of(installed.release, truths.get(model, OLD_TRUTH)).heats
            for model, installed in served
        )
        return figures.board(heats, run_s)

    def ending(self, now: float, truths: Mapping[str, Truth]) -> tuple[str, ...]:
        """The models whose confirmed release has ended the serving process by ``now``."""
        return tuple(
            model
            for model, one in self.served.items()
            if one.installed is not None
            and one.installed.release == NEW
            and not one.on_trial
            and ends(luck_with(model, self.luck), truths[model])
            and now >= max(truths[model].ends_from_s, one.since + truths[model].ends_every_s)
        )

    def end_process(self) -> None:
        """The serving process ends, and with it all models."""
        self.served = {}
        self.stints = ()
        self.pid += 1

    def _labels(
        self, now: float, truths: Mapping[str, Truth], labelled: Labelled
    ) -> LabelReport | None:
        """The counters of late labels, of a device that sends telemetry all the time."""
        if not self.stays or not labelled.share:
            return None
        for model, one in self.served.items():
            if one.installed is not None:
                release = one.installed.release
                own = figures.truth_of(release, truths.get(model, OLD_TRUTH))
                requests_s = self.requests_s * own.requests
                stint = Stint(model, release, own.labelled_accuracy, requests_s, one.since, now)
                self.stints = noted(self.stints, stint)
        return report(self.stints, labelled, now, epoch=self.pid, row=self.row, luck=self.luck)

    def _model(
        self, model: str, one: Served, now: float, truths: Mapping[str, Truth], traffic: Traffic
    ) -> ModelStatus:
        installed = one.installed
        if installed is None:
            return ModelStatus(
                model=model, release=NEW, artifact_sha256="", ready=False, trial_ended=one.ended
            )
        since_s = now - one.since - _overlap(traffic.pause, one.since, now)
        luck = luck_with(model, self.luck)
        truth = truths.get(model, OLD_TRUTH)
        own = figures.truth_of(installed.release, truth)
        requests_s = self.requests_s * own.requests
        asked = int(since_s * requests_s)
        refused = int(asked * own.refused)
        requests = asked - refused
        errors = int(requests * own.errors)
        if installed.release == NEW:
            if luck < truth.fails or fails_late(luck, one.since, truth):
                errors += requests * 3 // 10
            elif burns(luck, truth) and since_s > truth.burns_after_s:
                errors += int((since_s - truth.burns_after_s) * requests_s) // 2
            elif truth.wears and since_s > truth.wears_after_s:
                errors += int((since_s - truth.wears_after_s) * requests_s * truth.wears)
        if installed.release == NEW and (hangs(luck, truth) or mutes(luck, truth)):
            stats = _unanswered(requests, since_s, refused=mutes(luck, truth))
            return _ready(model, one, installed, stats)
        shadow = self._shadow(model, one, now, own, truth, pause=traffic.pause)
        down_s = _overlap(traffic.outage, one.since, now)
        errors = min(requests, errors + int(down_s * requests_s))
        if self.stays:
            stats = figures.sketched(
                own, requests, errors, luck, refused=refused, run_s=now - one.since
            )
        else:
            stats = figures.plain(own, requests, errors, refused=refused)
        return msgspec.structs.replace(_ready(model, one, installed, stats), shadow=shadow)

    def _shadow(
        self, model: str, one: Served, now: float, active: Truth, truth: Truth, *, pause: Span
    ) -> ShadowStatus | None:
        """The figures of a candidate beside the ``active`` release.

        There are no requests in the ``pause``.
        """
        if one.shadow is None:
            return None
        luck, candidate = luck_with(model, self.luck), figures.truth_of(one.shadow.release, truth)
        pause_s = _overlap(pause, one.shadow_since, now)
        asked = int((now - one.shadow_since - pause_s) * self.requests_s * active.requests)
        samples = int(asked * one.shadow_share)
        errors = int(samples * candidate.errors)
        crashed = False
        if one.shadow.release == NEW:
            errors += samples * 3 // 10 if luck < truth.fails else 0
            crashed = _crashed(luck, truth)
        errors = min(errors, samples)
        compared = samples - errors
        return ShadowStatus(
            release=one.shadow.release,
            artifact_sha256=one.shadow.variant.artifact.sha256,
            ready=True,
            ended="The worker crashed." if crashed else "",
            cause="serving_crashed" if crashed else "",
            fault=crashed,
            asked=asked,
            samples=samples,
            errors=errors,
            disagreement=round(compared * candidate.disagrees, 6),
            confidence_count=compared,
            confidence_before_sum=compared * active.confidence,
            confidence_sum=compared * candidate.confidence,
            cpu_s=figures.CPU_S * candidate.cpu * compared,
        )


def _ready(model: str, one: Served, installed: InstalledRelease, stats: LiveStats) -> ModelStatus:
    return ModelStatus(
        model=model,
        release=installed.release,
        artifact_sha256=installed.variant.artifact.sha256,
        ready=True,
        on_trial=one.on_trial and not one.ended,
        trial_ended=one.ended,
        stats=stats,
    )


def _unanswered(requests: int, since_s: float, *, refused: bool) -> LiveStats:
    """The counters of a release of which no request ends, or that refuses each request."""
    if refused:
        return LiveStats(refused=requests)
    waiting = min(requests, QUEUED + 1)
    return LiveStats(
        refused=requests - waiting,
        in_flight=waiting,
        oldest_in_flight_s=since_s * (1 - 1 / requests) if requests else 0.0,
    )


def _overlap(span: Span, since: float, until: float) -> float:
    """The part of ``span`` between two times, in seconds."""
    return max(0.0, min(until, span[1]) - max(since, span[0]))


def shares_of(truth: Truth) -> tuple[float, ...]:
    """The shares of devices on which a release behaves in one way, in the order of their luck."""
    return (
        truth.fails,
        truth.crashes,
        truth.bricks,
        truth.refuses,
        truth.burns,
        truth.hangs,
        truth.mute,
        truth.ends,
    )


def hangs(luck: float, truth: Truth) -> bool:
    low = sum(shares_of(truth)[:5])
    return low <= luck < low + truth.hangs


def mutes(luck: float, truth: Truth) -> bool:
    low = sum(shares_of(truth)[:6])
    return low <= luck < low + truth.mute


def ends(luck: float, truth: Truth) -> bool:
    low = sum(shares_of(truth)[:7])
    return low <= luck < low + truth.ends


def refuses(luck: float, truth: Truth) -> bool:
    low = truth.fails + truth.crashes + truth.bricks
    return low <= luck < low + truth.refuses


def bricks(luck: float, truth: Truth) -> bool:
    low = truth.fails + truth.crashes
    return low <= luck < low + truth.bricks


def _crashed(luck: float, truth: Truth) -> bool:
    return truth.fails <= luck < truth.fails + truth.crashes


def fails_late(luck: float, since: float, truth: Truth) -> bool:
    """``since`` and ``truth.late_from_s`` are in seconds since the epoch."""
    return since >= truth.late_from_s and 1 > luck >= 1 - truth.late_fails


def burns(luck: float, truth: Truth) -> bool:
    low = truth.fails + truth.crashes + truth.bricks + truth.refuses
    return low <= luck < low + truth.burns
