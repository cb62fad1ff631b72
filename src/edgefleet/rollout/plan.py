"""Planning: checks of a specification, and the first state of a rollout. Changes nothing."""

import math
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from edgefleet.base.errors import OperatorError
from edgefleet.base.texts import are, counted
from edgefleet.protocol.metrics import BOUNDS
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import DeviceClass, GateSpec, RolloutSpec, Status, WaveSpec
from edgefleet.rollout.active import ActiveRollout, PublishedRelease
from edgefleet.rollout.constraints.approval import check_approval
from edgefleet.rollout.constraints.label_budget import check_budgets
from edgefleet.rollout.constraints.pace import check_pace
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.earlier import Earlier
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.eligibility import Misfit
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.scope import Scope
from edgefleet.rollout.fleet.selector import Selector, parse
from edgefleet.rollout.lifecycle.state import RolloutState, WaveState
from edgefleet.rollout.limits import ALPHA_LEAST, LABEL_KEYS_NAMED, MEMORY_NEEDS_NAMED, WAVES
from edgefleet.rollout.running_today import RunningToday

Manifests = Mapping[tuple[str, str], PublishedRelease]
"""The published releases by model and release."""


def check_waves(waves: tuple[WaveSpec, ...], fleet: Fleet) -> None:
    """Check the waves: 1 to 20, each with devices that no earlier wave contains."""
    if not 1 <= len(waves) <= WAVES:
        raise OperatorError(
            "waves_invalid",
            f"The plan has {len(waves)} waves; 1 to {WAVES} are allowed.",
            field="waves",
        )
    last: dict[str, WaveSpec] = {}
    for index, wave in enumerate(waves):
        field = f"waves[{index}]"
        _check_wave(wave, field)
        if wave.selector:
            check_selector(wave.selector, fleet, field=f"{field}.selector")
        _check_rising(last.get(wave.selector), wave, field)
        last[wave.selector] = wave


def _check_wave(wave: WaveSpec, field: str) -> None:
    if wave.percent is not None and wave.count is not None:
        raise OperatorError(
            "waves_invalid", "A wave has a percent or a count, not both.", field=field
        )
    if wave.percent is None and wave.count is None and not wave.selector:
        raise OperatorError(
            "waves_invalid", "A wave needs a percent, a count or a selector.", field=field
        )
    if wave.percent is not None and not 0 < wave.percent <= 100:
        raise OperatorError(
            "percent_out_of_range",
            f"The percent must be above 0 and at most 100, not {wave.percent:g}.",
            field=f"{field}.percent",
        )
    if wave.count is not None and wave.count < 1:
        raise OperatorError(
            "waves_invalid",
            f"A wave needs at least 1 device, not {wave.count}.",
            field=f"{field}.count",
        )


def _check_rising(before: WaveSpec | None, wave: WaveSpec, field: str) -> None:
    """Check two waves with the same selector: the later wave must be able to contain more."""
    if before is None:
        return
    if before.count is None and (before.percent is None or before.percent >= 100):
        where = f"{field}.percent" if wave.percent is not None else field
        raise OperatorError(
            "percent_not_rising",
            "An earlier wave already contains all devices of this wave.",
            field=where,
        )
    if before.percent is not None and wave.percent is not None and wave.percent <= before.percent:
        raise OperatorError(
            "percent_not_rising",
            f"{wave.percent:g} % is not above the {before.percent:g} % of the wave before.",
            field=f"{field}.percent",
        )
    if before.count is not None and wave.count is not None and wave.count <= before.count:
        raise OperatorError(
            "waves_invalid",
            f"{counted(wave.count, 'device')}: no more than the {before.count} of the wave before.",
            field=f"{field}.count",
        )


def check_gate(gate: GateSpec) -> None:
    """Check the range of each number. Raises ``gate_invalid`` with the first field at fault."""
    for bound in BOUNDS:
        _in_range(bound.field, bound.of(gate), 0, bound.high, bound.wanted)
    _in_range("min_sample", gate.min_sample, 1, math.inf, "1 device or more")
    _in_range("soak_s", gate.soak_s, 0, math.inf, "seconds, 0 or more")
    _in_range("confirm_after_s", gate.confirm_after_s, 0, math.inf, "seconds, 0 or more")
    _in_range("silence_s", gate.silence_s, 1e-3, math.inf, "seconds, above 0")
    _in_range("patience_s", gate.patience_s, 0, math.inf, "seconds, 0 or more")
    least = f"from {ALPHA_LEAST:g}, below which no test could fail a release, to 0.5 (0.01 is 1 %)"
    _in_range("alpha", gate.alpha, ALPHA_LEAST, 0.5, least)
    _in_range("ask_p", gate.ask_p, 0, 1, "0 to 1 (0.05 is 5 %)")
    _in_range("min_requests", gate.min_requests, 1, math.inf, "1 request or more")


def check_knobs(spec: RolloutSpec, fleet: Fleet) -> None:
    """Check exposure, pace, budgets, approval and start time. Raises for the first bad field."""
    if spec.exposure.first < 1:
        raise OperatorError(
            "exposure_invalid",
            f"The first exposure needs at least 1 device, not {spec.exposure.first}.",
            field="exposure.first",
        )
    if not (spec.exposure.growth >= 0 and math.isfinite(spec.exposure.growth)):
        raise OperatorError(
            "exposure_invalid",
            f"Growth must be a number, 0 or more, not {spec.exposure.growth}.",
            field="exposure.growth",
        )
    if not 0 <= spec.exposure.ceiling <= 1:
        raise OperatorError(
            "exposure_invalid",
            f"The ceiling must be a share of the fleet, from 0 to 1, not {spec.exposure.ceiling}.",
            field="exposure.ceiling",
        )
    check_pace(spec.pace)
    check_budgets(spec.budgets, fleet)
    check_approval(spec.approval)
    if spec.start_at is not None and not math.isfinite(spec.start_at):
        raise OperatorError(
            "bad_request",
            f"The start time must be seconds since the epoch, not {spec.start_at}.",
            field="start_at",
        )


def _in_range(name: str, value: float, low: float, high: float, wanted: str) -> None:
    if not (low <= value <= high and math.isfinite(value)):
        raise OperatorError(
            "gate_invalid", f"{value!r} is out of range: {wanted}.", field=f"gate.{name}"
        )


def check_selector(text: str, fleet: Fleet, *, field: str = "selector") -> Selector:
    """Parse a selector. A key that no device carries is refused as a likely typing error."""
    selector = parse(text, field=field)
    known = fleet.label_keys
    for key in selector.keys:
        if key not in known:
            named = ", ".join(sorted(known)[:LABEL_KEYS_NAMED]) or "none"
            raise OperatorError(
                "selector_key_unknown",
                f"No device carries the label {key!r}; known labels: {named}.",
                field=field,
            )
    return selector


def check_fleet(scope: Scope, fleet: Fleet, spec: RolloutSpec) -> None:
    """Check the fleet: a device is eligible, and each wave can have one.

    Devices without a variant, devices on which the model would displace another one, and devices
    with too little memory left are skipped only if ``spec.skip_ineligible`` is true.
    """
    selected = fleet.selected(scope.selector)
    if not selected.any():
        raise OperatorError("fleet_empty", "The selector matches no device.", field="selector")
    reasons = scope.ineligible()
    if Misfit.NO_VARIANT in reasons and not spec.skip_ineligible:
        raise OperatorError(
            "variant_missing",
            f"Release {spec.release} has no variant for "
            f"{_without_variant(scope, fleet, selected)}.",
            field="release",
        )
    if Misfit.AGENT_ONE_MODEL in reasons and not spec.skip_ineligible:
        count, rest = reasons[Misfit.AGENT_ONE_MODEL], int(np.count_nonzero(scope.eligible_mask()))
        raise OperatorError(
            "agent_one_model",
            f"Model {spec.model} would displace another model on {counted(count, 'device')}, whose "
            f"agents have one model; {counted(rest, 'device')} {are(rest)} eligible.",
            field="selector",
        )
    if Misfit.MEMORY_FULL in reasons and not spec.skip_ineligible:
        count = reasons[Misfit.MEMORY_FULL]
        raise OperatorError(
            "memory_full",
            f"Release {spec.release} does not fit into the memory of {count} "
            f"{'device' if count == 1 else 'devices'} beside their other models: {_needs(scope)}.",
            field="release",
        )
    if not scope.eligible_mask().any():
        named = ", ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items()))
        raise OperatorError(
            "fleet_empty",
            f"Release {spec.release} fits none of the selected devices: {named}.",
            field="selector",
        )
    every = scope.eligible_rows()
    for index, wave in enumerate(spec.waves):
        if not scope.matching(every, wave.selector).any():
            raise OperatorError(
                "fleet_empty",
                f"No eligible device matches the selector {wave.selector}.",
                field=f"waves[{index}].selector",
            )


def _without_variant(scope: Scope, fleet: Fleet, selected: Mask) -> str:
    """The profiles without a variant, each with its number of devices."""
    missing: dict[str, int] = {}
    counts = np.bincount(fleet.kit_ids[selected], minlength=fleet.kit_count)
    for number, count in enumerate(counts.tolist()):
        profile = fleet.kit(number).profile
        if count and not scope.has_variant(profile):
            missing[profile] = missing.get(profile, 0) + count
    return ", ".join(
        f"{name} ({counted(count, 'device')})" for name, count in sorted(missing.items())
    )


def _needs(scope: Scope) -> str:
    """The memory that is needed and left, for the most frequent cases with their devices."""
    needs = scope.room.needs(scope.without_room())
    named = [
        f"{count} have {need.total_mib} MiB for models, of which {need.taken_mib} MiB are taken, "
        f"and need {need.limit_mib} MiB"
        for need, count in needs[:MEMORY_NEEDS_NAMED]
    ]
    rest = sum(count for _, count in needs[MEMORY_NEEDS_NAMED:])
    return "; ".join([*named, *([f"{rest} in other ways"] if rest else [])])


def check_free(
    scope: Scope, model: str, others: Iterable[ActiveRollout], statuses: Collection[Status]
) -> None:
    """Check that no rollout of the model with one of ``statuses`` has a device in common."""
    mine = scope.eligible_mask()
    for other in others:
        if other.model == model and other.state.status in statuses:
            common = int(np.count_nonzero(mine & other.scope.eligible_mask()))
            if common:
                raise OperatorError(
                    "rollout_overlap",
                    f"Rollout {other.state.id} is {other.state.status} on "
                    f"{common} of these devices.",
                    field="selector",
                )


def check_not_failed_before(
    scope: Scope, spec: RolloutSpec, rollouts: Collection[ActiveRollout]
) -> None:
    """Check that the release did not fail on these devices, unless it gets a second chance.

    ``rollouts`` are the rollouts of the release, newest first. A revert by a person is no failure.
    A second chance needs a reason, and a release that was taken back, or that a device failed.
    """
    if spec.again and not spec.again.strip():
        raise OperatorError("bad_request", "The reason is empty.", field="again")
    rows = scope.eligible_rows()
    taken_back = [one for one in rollouts if one.state.is_taken_back and _share_rows(one, rows)]
    failed = next((one for one in taken_back if one.state.has_failed), None)
    out = np.zeros(len(rows), np.bool_)
    for one in rollouts:
        out |= one.set_aside.at_fault(rows) | one.all_taken_back(rows)
    if spec.again:
        if not taken_back and not out.any():
            raise OperatorError(
                "again_not_needed",
                f"Release {spec.release} was neither taken back from these devices nor failed on "
                "one of them.",
                field="again",
            )
        return
    if failed is not None:
        raise OperatorError(
            "release_failed_before",
            f"Release {spec.release} was tried on some of these devices before: rollout "
            f"{failed.state.id} is {failed.state.status} ({failed.state.reason}).",
            field="release",
        )
    if out.all():
        raise OperatorError(
            "release_failed_before",
            f"Release {spec.release} failed on each of these devices, was taken back from it, or "
            "the device refused it.",
            field="release",
        )


def _share_rows(other: ActiveRollout, rows: Rows) -> bool:
    return bool(other.scope.all_eligible(rows).any())


def check_new(scope: Scope, release: PublishedRelease, desired: Desired) -> None:
    """Check that an eligible device has another desired release. Else a revert has no effect."""
    rows = scope.eligible_rows()
    if len(rows) and bool((desired.numbers(rows, release.manifest.model) == release.number).all()):
        raise OperatorError(
            "release_current",
            f"Release {release.manifest.release} is already the desired release of these devices.",
            field="release",
        )


def running_releases(
    scope: Scope, fleet: Fleet, desired: Desired, model: str, manifests: Manifests
) -> tuple[ReleaseManifest, ...]:
    """The releases of the model that the eligible devices should run, by name.

    For devices that no rollout gives one, those that they run.
    """
    rows = scope.eligible_rows()
    wanted = desired.numbers(rows, model)
    free = np.zeros(len(fleet), np.bool_)
    free[rows[wanted == 0]] = True
    numbers = set(np.unique(wanted).tolist()) | fleet.models.count(free)[0].keys()
    named = (fleet.models.release_named(number) for number in numbers)
    found = {key for key in named if key is not None and key[0] == model and key in manifests}
    return tuple(manifests[key].manifest for key in sorted(found))


def check_interface(spec: RolloutSpec, changes: tuple[str, ...]) -> None:
    """Check that clients notice no change, unless the plan says that they are ready."""
    if changes and not spec.changes_interface:
        raise OperatorError(
            "interface_changed",
            f"Release {spec.release} has another interface than the release that runs today. "
            f"{' '.join(changes)}",
            field="changes_interface",
        )


def second_chance(spec: RolloutSpec) -> str:
    """The reason why a release that was taken back is planned again, as a sentence."""
    return f'Release {spec.release} gets a second chance: "{spec.again}".'


def after_all(others: Iterable[ActiveRollout], now: float) -> float:
    """``now``, or just after the newest rollout if the clock was set back since.

    The newest rollout of a device decides its release, so creation times must ascend.
    """
    newest = max((other.state.created_at for other in others), default=-math.inf)
    return max(now, math.nextafter(newest, math.inf))


def planned(
    spec: RolloutSpec,
    *,
    rollout_id: str,
    salt: int,
    previous: str | None,
    running: RunningToday,
    earlier: Earlier,
    now: float,
    classes: tuple[DeviceClass, ...] = (),
    interface: tuple[str, ...] = (),
) -> RolloutState:
    """The first state of a rollout whose specification was checked."""
    return RolloutState(
        id=rollout_id,
        spec=spec,
        salt=salt,
        previous=previous,
        adds=running.adds,
        had_model=running.had_model,
        replaced=running.replaced,
        beside=running.beside,
        left_out=running.left_out,
        classes=classes,
        interface=interface,
        history=earlier.history,
        baseline=earlier.baseline,
        status=Status.PLANNED,
        reason="planned",
        text="Planned and not started.",
        since=now,
        created_at=now,
        waves=whole(spec.waves),
    )


def whole(waves: tuple[WaveSpec, ...]) -> tuple[WaveState, ...]:
    """The waves, with a last wave for all remaining devices unless the plan has one."""
    made = tuple(
        WaveState(percent=wave.percent, count=wave.count, selector=wave.selector) for wave in waves
    )
    last = waves[-1]
    if last.percent is not None and last.percent >= 100 and not last.selector:
        return made
    return (*made, WaveState(percent=100, is_rest=True))


def previous_release(scope: Scope, fleet: Fleet, desired: Desired, model: str) -> str | None:
    """The release of this model that most of the eligible devices should run now."""
    counts = np.bincount(desired.numbers(scope.eligible_rows(), model), minlength=1)
    for number in np.argsort(-counts, kind="stable").tolist():
        named = fleet.models.release_named(number)
        if named is not None and counts[number]:
            return named[1]
    return None


def check_newest(active: ActiveRollout, others: Iterable[ActiveRollout]) -> None:
    """Check that no newer rollout of the model has completed on a device of a halted one."""
    mine = active.scope.eligible_mask()
    for other in others:
        newer = other.model == active.model and other.state.created_at > active.state.created_at
        completed = newer and other.state.status is Status.COMPLETED
        if completed and (mine & other.scope.eligible_mask()).any():
            raise OperatorError(
                "verb_not_now",
                f"The newer rollout {other.state.id} has completed on some of these devices. "
                "Plan a new rollout.",
            )
