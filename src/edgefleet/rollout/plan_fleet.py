"""The fleet of a plan as groups of like devices: enough to simulate the plan, without names."""

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from edgefleet.protocol.comparisons import comparison_name
from edgefleet.protocol.operator import FleetGroup, PlanFleet
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import RolloutSpec
from edgefleet.rollout.constraints.window import DEVICE, LABEL
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.fleet.eligibility import (
    Misfit,
    all_too_old,
    limits_of,
    misfit,
    variants_of,
)
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.selector import parse
from edgefleet.rollout.limits import GROUPS
from edgefleet.rollout.running_today import count_today

_TOO_OLD, _ONE_MODEL, _MEMORY_FULL = 1, 2, 3
NOBODY: Final[Mapping[str, Rows]] = MappingProxyType({})
_OTHERS: Final = (None, Misfit.AGENT_TOO_OLD, Misfit.AGENT_ONE_MODEL, Misfit.MEMORY_FULL)


def compose(
    fleet: Fleet,
    spec: RolloutSpec,
    manifest: ReleaseManifest,
    without_room: Rows,
    *,
    interval_s: float,
    now: float,
    blocked: Mapping[str, Rows] = NOBODY,
    warnings: tuple[str, ...] = (),
    interface: tuple[str, ...] = (),
) -> PlanFleet:
    """Group the devices that ``spec`` selects and ``manifest`` fits by profile and labels.

    Only labels that the plan uses distinguish devices. Beyond ``GROUPS`` groups, the devices of the
    smallest groups lose their labels. ``spec`` must have been checked. ``without_room``: see
    ``Engine.without_room``. ``blocked``: see ``Engine.waiting_for_a_person``. ``warnings`` are
    those of ``why.baseline``.
    """
    rows = np.flatnonzero(fleet.selected(parse(spec.selector)))
    out = np.concatenate([np.zeros(0, np.int64), *blocked.values()])
    variants, comparison = variants_of(manifest), comparison_name(manifest.golden.comparison)
    keys = _keys(spec)
    groups: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
    left_out: Counter[str] = Counter()
    protocols = fleet.protocols[rows]
    other = fleet.all_have_only_another(rows, spec.model)
    others = np.where(np.isin(rows, without_room), _MEMORY_FULL, 0)
    others = np.where(all_too_old(protocols), _TOO_OLD, np.where(other, _ONE_MODEL, others))
    # One number for each kind of device: NumPy finds distinct rows of a table 20 times slower.
    label_ids = fleet.label_ids[rows].astype(np.int64)
    label_count = int(label_ids.max(initial=0)) + 1
    kinds = fleet.kit_ids[rows].astype(np.int64) * label_count + label_ids
    kinds = (kinds * len(_OTHERS) + others) * 2 + np.isin(rows, out)
    distinct, kind_of, counts = np.unique(kinds, return_inverse=True, return_counts=True)
    fits = np.zeros(len(distinct), np.bool_)
    for number, (kind, count) in enumerate(zip(distinct.tolist(), counts.tolist(), strict=True)):
        rest, is_out = divmod(kind, 2)
        rest, reason = divmod(rest, len(_OTHERS))
        kit_id, label_id = divmod(rest, label_count)
        kit = fleet.kit(kit_id)
        unfit = misfit(kit, variants, comparison) or _OTHERS[reason]
        if unfit is not None:
            left_out[unfit.value] += count
            continue
        fits[number] = True
        if is_out:
            continue
        labels = fleet.label_set(label_id)
        used = tuple((key, labels[key]) for key in keys if key in labels)
        groups[kit.profile, used] += count
    eligible = rows[fits[kind_of]]
    running = count_today(fleet, eligible, blocked, spec.model, spec.release)
    mine = rows[~np.isin(rows, out)]
    away = fleet.silent_longer(mine, now, fleet.offline_after_s)
    return PlanFleet(
        at=now,
        interval_s=interval_s,
        groups=_bounded(groups),
        offline=min(int(np.count_nonzero(away)), sum(groups.values())),
        ineligible=dict(left_out),
        adds=running.adds,
        had_model=running.had_model,
        memory_mib=_limits(fleet, rows, manifest),
        replaced=running.replaced,
        beside=running.beside,
        left_out=running.left_out,
        warnings=warnings,
        interface=interface,
    )


def _limits(fleet: Fleet, rows: Rows, manifest: ReleaseManifest) -> dict[str, int]:
    """The memory limit of the variant for each profile of the devices, in MiB."""
    limits = limits_of(manifest)
    kits = np.unique(fleet.kit_ids[rows]).tolist()
    profiles = sorted({fleet.kit(number).profile for number in kits} & limits.keys())
    return {profile: limits[profile] for profile in profiles}


def _keys(spec: RolloutSpec) -> tuple[str, ...]:
    """The label keys that the plan uses, without its selector, which all devices match."""
    keys = {key for wave in spec.waves for key in parse(wave.selector).keys}
    keys.update(budget.label for budget in spec.budgets)
    if spec.pace.bytes_per_s_per_site:
        keys.add(spec.site_label)
    if any(window.timezone == DEVICE for window in spec.windows):
        keys.add(LABEL)
    return tuple(sorted(keys))


def _bounded(
    groups: Counter[tuple[str, tuple[tuple[str, str], ...]]],
) -> tuple[FleetGroup, ...]:
    ranked = groups.most_common()
    rest: Counter[str] = Counter()
    for (profile, _), count in ranked[GROUPS:]:
        rest[profile] += count
    return (
        *(
            FleetGroup(profile=profile, labels=dict(labels), devices=count)
            for (profile, labels), count in ranked[:GROUPS]
        ),
        *(FleetGroup(profile=profile, devices=count) for profile, count in rest.items()),
    )
