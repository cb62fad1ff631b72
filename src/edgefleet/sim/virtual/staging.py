"""Work that busy devices do for a release before it serves: its manifest, its files, its proof."""

from typing import Final

from edgefleet.agent import effect as do
from edgefleet.agent import event as happened
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.serving import ProveResult
from edgefleet.sim.virtual import telemetry as figures
from edgefleet.sim.virtual.active_device import Live, refuses
from edgefleet.sim.virtual.environment import Outside
from edgefleet.sim.virtual.scenario import NEW

_NOT_PROVED: Final = ProveResult(passed=False, reason="golden_failed", detail="0.71 of 0.9.")


class Work:
    """Each job takes its time on the device's own link, disk and processor, or fails there."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._manifests: dict[str, tuple[ReleaseManifest, str]] = {}

    def know(self, made: ReleaseManifest, sha256: str) -> None:
        """A release that devices may be offered."""
        self._manifests[sha256] = (made, sha256)

    def fetch_manifest(self, live: Live, effect: do.FetchManifest) -> None:
        outside = self._outside
        if outside.hub.down_until or not outside.facts.up(live.row, outside.now):
            self._failed(live, effect.job, "unreachable")
            return
        made, sha256 = self._manifests[effect.sha256]
        outside.later(
            live,
            0.1 + 0.2 * outside.draw(),
            happened.ManifestOpened(job=effect.job, sha256=sha256, manifest=made),
        )

    def fetch(self, live: Live, effect: do.Fetch) -> None:
        outside, row = self._outside, live.row
        now, facts = outside.now, outside.facts
        if outside.hub.down_until or not facts.up(row, now):
            self._failed(live, effect.job, "unreachable")
        elif not facts.room(row, now):
            outside.suffered["disk_full"] += 1
            self._failed(live, effect.job, "disk_full")
        else:
            takes_s = (effect.artifact.size_bytes - live.came) / live.bytes_s
            breaks_s = self._link_holds_s(row)
            if takes_s > breaks_s:
                live.came += breaks_s * live.bytes_s
                self._failed(live, effect.job, "connection_lost", breaks_s)
            else:
                live.came = 0.0
                outside.later(live, takes_s + 0.05, happened.Fetched(job=effect.job))

    def prove(self, live: Live, effect: do.Prove) -> None:
        outside = self._outside
        release, truth = effect.installed.release, outside.scenario.release
        fails = release == NEW and refuses(live.luck, truth)
        least = effect.installed.golden.min_accuracy
        proof = _NOT_PROVED if fails else figures.proof(release, truth, least)
        proved = happened.Proved(job=effect.job, result=proof)
        outside.later(live, 2.0 + 2.0 * outside.draw(), proved)

    def stop(self, live: Live, effect: do.CancelStaging) -> None:
        """Its completion comes all the same, and the core takes no notice."""

    def remove(self, live: Live, effect: do.RemoveSlot) -> None:  # noqa: ARG002 - as all effects
        live.came = 0.0

    def _link_holds_s(self, row: int) -> float:
        """Seconds until a flapping link goes down."""
        facts = self._outside.facts
        up_s: float = facts.up_s.item(row)
        if facts.healed or up_s == float("inf"):
            return float("inf")
        cycle: float = up_s + facts.down_s.item(row)
        return up_s - (self._outside.now + facts.shift_s.item(row)) % cycle

    def _failed(self, live: Live, job: int, code: str, after_s: float = 1.0) -> None:
        draw = self._outside.draw()
        failed = happened.StagingFailed(job=job, code=code, detail="", draw=draw)
        self._outside.later(live, after_s, failed)
