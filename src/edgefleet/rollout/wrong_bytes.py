"""Devices that report the same wrong bytes for one artifact: they count as refusing the release.

One device cannot tell a damaged artifact from a proxy that changes it, and tries for a long time.
WRONG_BYTES_DEVICES devices with the same two digests can: the artifact that they fetch is damaged.
If the devices of the rollout are at several sites, the reports must come from two sites at least,
because one proxy or cache of a site gives all devices behind it the same wrong bytes. A device
counts while its last report is the deferral; it counts as in trial or healthy once it starts.
"""

from typing import Final, NamedTuple

import numpy as np

from edgefleet.protocol.device import Reason, WrongBytes
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import Evidence
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle.typed_replace import replace
from edgefleet.rollout.limits import WRONG_BYTES_DEVICES

_NOBODY: Final = np.zeros(0, np.int64)


class Damaged(NamedTuple):
    """``rows`` ascend. ``text`` is about the artifact with most of them; empty without any."""

    rows: Rows = _NOBODY
    text: str = ""


def find_damaged(active: ActiveRollout, fleet: Fleet) -> Damaged:
    """The devices whose downloads are damaged in the same way as those of enough others."""
    if not active.ledger.wrong_bytes:
        return Damaged()
    names = _artifacts(active.release.manifest)
    groups: dict[WrongBytes, list[int]] = {}
    for row in _deferring(active):
        found = active.ledger.wrong_bytes.get(row)
        if found is not None and found.expected in names and found.found != found.expected:
            groups.setdefault(found, []).append(row)
    enough = {
        wrong: rows
        for wrong, rows in groups.items()
        if len(rows) >= WRONG_BYTES_DEVICES and _are_apart(active, fleet, rows)
    }
    if not enough:
        return Damaged()
    worst = max(enough, key=lambda wrong: (len(enough[wrong]), wrong.found))
    text = (
        f"The downloads of {names[worst.expected]} all have the same wrong bytes: SHA-256 "
        f"{worst.expected} expected, {worst.found} found."
    )
    rows = sorted(row for each in enough.values() for row in each)
    return Damaged(np.array(rows, np.int64), text)


def with_damaged(evidence: Evidence, fleet: Fleet, damaged: Damaged) -> Evidence:
    """The evidence in which the devices, counted as deferred so far, refuse the release."""
    devices = len(damaged.rows)
    if not devices:
        return evidence
    code = Reason.DIGEST.value
    return replace(
        evidence,
        deferred=max(0, evidence.deferred - devices),
        refused=evidence.refused + devices,
        damaged=devices,
        reasons={**evidence.reasons, code: evidence.reasons.get(code, 0) + devices},
        details={**evidence.details, code: damaged.text},
        examples={**evidence.examples, code: fleet.name(int(damaged.rows[0]))},
    )


def _deferring(active: ActiveRollout) -> list[int]:
    rows = active.ledger.rows(DeviceStanding.DEFERRED)
    kept: list[int] = (rows[~active.all_taken_back(rows)] if active.taken else rows).tolist()
    return kept


def _artifacts(manifest: ReleaseManifest) -> dict[str, str]:
    """The artifacts of a release in words, by their digests."""
    found: dict[str, str] = {manifest.golden.artifact.sha256: "the golden set"}
    profiles: dict[str, list[str]] = {}
    for variant in manifest.variants:
        profiles.setdefault(variant.artifact.sha256, []).append(variant.profile)
    for digest, named in profiles.items():
        found[digest] = f"the model file for {', '.join(sorted(named))}"
    return found


def _are_apart(active: ActiveRollout, fleet: Fleet, rows: list[int]) -> bool:
    """Whether the devices are at two sites, or all devices of the rollout at one."""
    mine = _sites(active, fleet, np.array(rows, np.int64))
    return len(mine) > 1 or len(_sites(active, fleet, active.scope.eligible_rows())) == 1


def _sites(active: ActiveRollout, fleet: Fleet, rows: Rows) -> set[str]:
    key = active.state.spec.site_label
    labels = np.unique(fleet.label_ids[rows]).tolist()
    return {fleet.label_set(number).get(key, "") for number in labels}
