"""The hub's metrics, for Prometheus."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from edgefleet.hub.exposition import Exposition, Histogram
from edgefleet.protocol.label_evidence import LabelEvidence
from edgefleet.protocol.why import WaitReport
from edgefleet.rollout.fleet.reports import FleetFigures

_CHECKIN_BOUNDS_S: Final = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
)  # fmt: skip
_COMMIT_BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


@dataclass(frozen=True, slots=True)
class Gauges:
    """Values that are read from the hub at the moment of a scrape."""

    fleet: FleetFigures
    rollouts: Mapping[str, int]  # by status
    waits: Iterable[tuple[str, WaitReport]]  # by rollout, for the newest
    quarantined: int  # devices
    copied: int  # devices
    ahead: int  # devices that run what the hub has no record of
    unknown: int  # devices with a credential of this hub, which does not know them
    labels: Iterable[tuple[str, LabelEvidence]]  # by rollout, for the newest
    labels_waiting: int
    releases: int
    writes: int
    queue_depth: int
    uptime_s: float


class Metrics:
    """Counters since this hub started. ``outcomes`` also counts those in the store."""

    def __init__(self) -> None:
        self.checkins: Counter[str] = Counter()  # by "ok" or the error code
        self.checkin_seconds = Histogram(_CHECKIN_BOUNDS_S)
        self.outcomes: Counter[str] = Counter()
        self.repeated_outcomes = 0
        self.commit_seconds = Histogram(_COMMIT_BOUNDS_S)
        self.delayed_ticks = 0

    def text(self, now: Gauges) -> str:
        """All metrics in Prometheus' text format."""
        out = Exposition()
        _fleet(out, now.fleet)
        out.gauge("edgefleet_rollouts", "Rollouts, by status.", "status", now.rollouts)
        _waits(out, now)
        _labels(out, now)
        out.single("edgefleet_releases", "gauge", "Releases published.", now.releases)
        self._checkins(out)
        out.histogram(
            "edgefleet_commit_seconds",
            "Duration of one commit, synced to the disk.",
            self.commit_seconds,
        )
        out.single("edgefleet_writes_total", "counter", "Writes committed.", now.writes)
        out.single(
            "edgefleet_write_queue_depth",
            "gauge",
            "Writes that wait for a commit.",
            now.queue_depth,
        )
        out.single(
            "edgefleet_ticks_delayed_total",
            "counter",
            "Evaluations of rollouts delayed because the store was overloaded.",
            self.delayed_ticks,
        )
        out.single(
            "edgefleet_uptime_seconds", "gauge", "Time since this hub started.", now.uptime_s
        )
        return out.text()

    def _checkins(self, out: Exposition) -> None:
        out.counter(
            "edgefleet_checkins_total", "Check-ins answered, by result.", "result", self.checkins
        )
        out.histogram(
            "edgefleet_checkin_seconds",
            "Time from a complete check-in to its answer.",
            self.checkin_seconds,
        )
        out.counter("edgefleet_outcomes_total", "Outcomes counted, by kind.", "kind", self.outcomes)
        out.single(
            "edgefleet_outcomes_repeated_total",
            "counter",
            "Outcomes received again and not counted again.",
            self.repeated_outcomes,
        )


def _labels(out: Exposition, now: Gauges) -> None:
    """Labelled and correct answers of the newest rollouts, by the release that gave them."""
    labelled: list[tuple[dict[str, str], int]] = []
    correct: list[tuple[dict[str, str], int]] = []
    for rollout, found in now.labels:
        for side, count, right in (
            ("canary", found.canary, found.canary_correct),
            ("control", found.control, found.control_correct),
        ):
            labelled.append(({"rollout": rollout, "side": side}, count))
            correct.append(({"rollout": rollout, "side": side}, right))
    out.family("edgefleet_rollout_labelled", "gauge", "Answers with a late label.", labelled)
    out.family(
        "edgefleet_rollout_labelled_correct", "gauge", "Correct ones of these answers.", correct
    )
    out.single(
        "edgefleet_labels_waiting",
        "gauge",
        "Labels that their devices have not got yet.",
        now.labels_waiting,
    )


def _waits(out: Exposition, now: Gauges) -> None:
    """The waits that need a person: one sample for each rollout and reason, at most."""
    waiting = sorted({(rollout, w.code) for rollout, why in now.waits for w in why.for_a_person})
    out.family(
        "edgefleet_rollout_waits_for_person",
        "gauge",
        "1 for each rollout and reason that goes on until a person acts.",
        [({"rollout": rollout, "code": code.value}, 1) for rollout, code in waiting],
    )
    out.single(
        "edgefleet_quarantined_devices",
        "gauge",
        "Devices that are offered nothing until a person unquarantines them.",
        now.quarantined,
    )
    out.single(
        "edgefleet_copied_devices",
        "gauge",
        "Devices whose credential several agents use. Each counts as one device.",
        now.copied,
    )
    out.single(
        "edgefleet_ahead_devices",
        "gauge",
        "Devices that run what the hub has no record of, and are offered nothing.",
        now.ahead,
    )
    out.single(
        "edgefleet_unknown_devices",
        "gauge",
        "Devices with a credential of this hub of which it has no record.",
        now.unknown,
    )


def _fleet(out: Exposition, fleet: FleetFigures) -> None:
    online = {"online": fleet.online, "offline": fleet.total - fleet.online}
    out.gauge("edgefleet_devices", "Devices, by whether they are online.", "state", online)
    out.gauge("edgefleet_profile_devices", "Devices, by profile.", "profile", fleet.by_profile)
    out.gauge("edgefleet_phase_devices", "Online devices, by phase.", "phase", fleet.by_phase)
    out.gauge(
        "edgefleet_serving_devices",
        "Online devices with serving that is down, or whose serving process ended in an hour.",
        "status",
        {"down": fleet.serving.down, "unstable": fleet.serving.unstable},
    )
    out.gauge(
        "edgefleet_serving_ends",
        "Ends of serving processes by themselves in the last hour, by cause.",
        "cause",
        fleet.serving.ends,
    )
    out.gauge(
        "edgefleet_disk_fault_devices",
        "Devices that cannot write their disk, by the code of the error.",
        "fault",
        fleet.disk_faults,
    )
    out.family(
        "edgefleet_release_devices",
        "gauge",
        "Online devices, by the release they serve.",
        [
            ({"model": model, "release": release}, count)
            for model, releases in fleet.on_release.items()
            for release, count in releases.items()
        ],
    )
