"""Staging of a release on active devices: its manifest, its files and its proof."""

from typing import Final

from edgefleet.agent import effect as do
from edgefleet.agent import event as happened
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.serving import ProveResult
from edgefleet.sim.virtual import telemetry as figures
from edgefleet.sim.virtual.active_device import ActiveDevice, luck_with, refuses
from edgefleet.sim.virtual.environment import Environment
from edgefleet.sim.virtual.scenario import NEW, OLD_TRUTH

_NOT_PROVED: Final = ProveResult(passed=False, reason="golden_failed", detail="0.71 of 0.9.")


class StagingJobs:
    """Staging jobs, which need time on the device's link, disk and processor, or fail there."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._manifests: dict[str, tuple[ReleaseManifest, str]] = {}

    def publish(self, made: ReleaseManifest, sha256: str) -> None:
        """Make a release available to the devices."""
        self._manifests[sha256] = (made, sha256)

    def fetch_manifest(self, live: ActiveDevice, effect: do.FetchManifest) -> None:
        environment = self._environment
        if environment.hub.down_until or not environment.facts.up(live.row, environment.now):
            self._failed(live, effect, "unreachable")
            return
        made, sha256 = self._manifests[effect.sha256]
        environment.later(
            live,
            0.1 + 0.2 * environment.draw(),
            happened.ManifestOpened(
                model=effect.model, job=effect.job, sha256=sha256, manifest=made
            ),
        )

    def fetch(self, live: ActiveDevice, effect: do.Fetch) -> None:
        environment, row = self._environment, live.row
        now, facts = environment.now, environment.facts
        if environment.hub.down_until or not facts.up(row, now):
            self._failed(live, effect, "unreachable")
        elif not facts.room(row, now):
            environment.suffered["disk_full"] += 1
            self._failed(live, effect, "disk_full")
        else:
            came = live.came.get(effect.model, 0.0)
            takes_s = (effect.artifact.size_bytes - came) / live.bytes_s
            breaks_s = self._link_up_s(row)
            if takes_s > breaks_s:
                live.came = live.came | {effect.model: came + breaks_s * live.bytes_s}
                self._failed(live, effect, "connection_lost", breaks_s)
            else:
                self._complete(live, effect.model)
                environment.later(
                    live, takes_s + 0.05, happened.Fetched(model=effect.model, job=effect.job)
                )

    def prove(self, live: ActiveDevice, effect: do.Prove) -> None:
        environment = self._environment
        release = effect.installed.release
        truth = environment.truths.get(effect.model, OLD_TRUTH)
        fails = release == NEW and refuses(luck_with(effect.model, live.luck), truth)
        least = effect.installed.golden.min_accuracy
        proof = _NOT_PROVED if fails else figures.proof(release, truth, least)
        proved = happened.Proved(model=effect.model, job=effect.job, result=proof)
        environment.later(live, 2.0 + 2.0 * environment.draw(), proved)

    def stop(self, live: ActiveDevice, effect: do.CancelStaging) -> None:
        """Does nothing: the job's completion still arrives, and the core ignores it."""

    def remove(self, live: ActiveDevice, effect: do.RemoveSlot) -> None:
        self._complete(live, effect.model)

    def _complete(self, live: ActiveDevice, model: str) -> None:
        """No part of a download of the model is left."""
        live.came = {other: came for other, came in live.came.items() if other != model}

    def _link_up_s(self, row: int) -> float:
        """Seconds until a flapping link goes down. Infinity for a stable link."""
        facts = self._environment.facts
        up_s: float = facts.up_s.item(row)
        if facts.healed or up_s == float("inf"):
            return float("inf")
        cycle: float = up_s + facts.down_s.item(row)
        return up_s - (self._environment.now + facts.shift_s.item(row)) % cycle

    def _failed(
        self,
        live: ActiveDevice,
        effect: do.FetchManifest | do.Fetch,
        code: str,
        after_s: float = 1.0,
    ) -> None:
        draw = self._environment.draw()
        failed = happened.StagingFailed(
            model=effect.model, job=effect.job, code=code, detail="", draw=draw
        )
        self._environment.later(live, after_s, failed)
