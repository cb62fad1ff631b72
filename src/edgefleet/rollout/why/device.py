"""The wait reports of a device and of a release."""

from collections.abc import Callable
from typing import Final

from edgefleet.protocol.comparisons import comparison_name
from edgefleet.protocol.device import Offer, Phase
from edgefleet.protocol.disk_fault import disk_wait
from edgefleet.protocol.rollout import Status
from edgefleet.protocol.version import OLDEST_SERVED, PROTOCOL
from edgefleet.protocol.why import Wait, WaitCode, WaitReport
from edgefleet.rollout.active import ActiveRollout, PublishedRelease
from edgefleet.rollout.constraints.blocked import Blocked
from edgefleet.rollout.constraints.copied import copied_wait
from edgefleet.rollout.desired import SET_UNKNOWN, Desired
from edgefleet.rollout.evidence.ledger import EXCLUDED, DeviceStanding
from edgefleet.rollout.fleet.device_models import NOTHING
from edgefleet.rollout.fleet.eligibility import (
    Misfit,
    datatypes_of,
    runtime_version,
    variants_of,
)
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle.state import OPEN
from edgefleet.rollout.lifecycle.typed_replace import replace
from edgefleet.rollout.plan import second_chance
from edgefleet.rollout.why.rollout import plan_another

_WITHOUT_ROLLOUT: Final = frozenset({WaitCode.UNKNOWN_SET, WaitCode.AHEAD})
"""Nothing is offered to the device for these reasons, whatever its rollouts are."""

Decisions = Callable[[str], Offer | Blocked]
Refusals = Callable[[ActiveRollout], Blocked | None]


def explain_device(
    row: int,
    fleet: Fleet,
    desired: Desired,
    rollouts: tuple[ActiveRollout, ...],
    now: float,
    *,
    decide: Decisions,
    refusal: Refusals,
) -> WaitReport:
    """The reasons why the device runs its releases. ``rollouts`` are ordered newest first.

    ``decide`` is the answer to the next check-in of the device for a model: ``Admission.decide``.
    ``refusal`` returns the reason why the device may not start the release of a rollout now. None
    if it may. Each reason has its model, whose last reason summarises it. With several models the
    line is that of a model that waits, if one does, and names the model. A disk that cannot be
    written comes before all of them, then serving that fails.
    """
    found: dict[str, list[Wait]] = {}
    on_device = {report.model for report in fleet.models.reports(row) if report.model}
    for model in sorted({*on_device, *(active.model for active in rollouts)}):
        mine = tuple(active for active in rollouts if active.model == model)
        waits = _explain_model(
            row, fleet, desired, mine, model, decision=decide(model), refusal=refusal
        )
        if model in on_device or waits[-1].code is not WaitCode.NO_ROLLOUT:
            found[model] = waits
    waits = [replace(wait, model=model) for model, mine in found.items() for wait in mine]
    if not waits and fleet.set_of(row).is_known:
        waits = [Wait(code=WaitCode.NO_ROLLOUT, text=_NO_ROLLOUT.format(runs="nothing"))]
    elif not waits:
        waits = [Wait(code=SET_UNKNOWN.code, text=SET_UNKNOWN.text)]
    line = waits[-1].text
    if len(found) > 1:
        chosen = next((wait for wait in waits if wait.code not in _SETTLED), waits[0])
        line = f"{chosen.model}: {chosen.text}"
    away = () if fleet.online(row, now) else (_away(row, fleet),)
    about = f"device/{fleet.name(row)}"
    serving = _serving(row, fleet)
    if serving and not away:
        line = f"{serving[0].text} {line}"
    disk = _disk(row, fleet)
    if disk:
        line = f"{disk[0].text} {line}"
    copied = () if WaitCode.COPIED in {wait.code for wait in waits} else _copied(row, fleet)
    if copied:
        line = copied[0].text
    first = (*copied, *disk, *away, *serving)
    return WaitReport(about=about, at=now, line=line, waits=(*first, *waits))


def _copied(row: int, fleet: Fleet) -> tuple[Wait, ...]:
    """The wait of a copied device. Empty if it is not copied."""
    return (copied_wait(fleet.name(row)),) if fleet.copies.is_copied(row) else ()


def _disk(row: int, fleet: Fleet) -> tuple[Wait, ...]:
    """The fault of the device's disk. Empty if the device can write."""
    fault = fleet.disk_faults.get(row)
    return (disk_wait(fault),) if fault else ()


def _serving(row: int, fleet: Fleet) -> tuple[Wait, ...]:
    """The trouble with serving that the last check-in reported. Empty if there is none."""
    view = fleet.serving.view(row)
    if view is None:
        return ()
    is_down = view.down_since is not None
    code = WaitCode.SERVING_DOWN if is_down else WaitCode.SERVING_UNSTABLE
    return (Wait(code=code, text=view.text, since=view.since),)


def _explain_model(
    row: int,
    fleet: Fleet,
    desired: Desired,
    rollouts: tuple[ActiveRollout, ...],
    model: str,
    *,
    decision: Offer | Blocked,
    refusal: Refusals,
) -> list[Wait]:
    """The reasons for one model, the one that summarises them last. ``rollouts`` are of it."""
    if isinstance(decision, Blocked) and decision.code in _WITHOUT_ROLLOUT:
        return [Wait(code=decision.code, text=decision.text)]
    waits: list[Wait] = []
    concerning = next((active for active in rollouts if _concerns(active, row)), None)
    wait = None
    if concerning is not None:
        wait = _in_rollout(row, fleet, desired, concerning, decision=decision, refusal=refusal)
        if wait is not None and _is_also_offered(wait, decision, concerning):
            waits.append(wait)  # the reason of the open rollout; another rollout gives an offer
            wait = _settled(row, fleet, desired, model, decision=decision, refusal=refusal)
    wait = wait or _not_given(row, fleet, desired, rollouts)
    if wait is None:
        wait = _settled(row, fleet, desired, model, decision=decision, refusal=refusal)
    if wait.code is WaitCode.DONE:
        wait = replace(wait, text=wait.text + _newer(row, desired, rollouts, model))
    return [*waits, wait]


def _newer(row: int, desired: Desired, rollouts: tuple[ActiveRollout, ...], model: str) -> str:
    """The sentence that names a newer release, of a completed rollout, that the device has not."""
    want = desired.rollout(row, model)
    for active in rollouts:
        if active is want:
            return ""
        standing = active.ledger.standing(row)
        if active.state.status is Status.COMPLETED and standing in EXCLUDED:
            what = _EXCLUSIONS[standing].format(release=active.state.spec.release)
            return f" {what} in rollout {active.state.id}, so it is not offered again."
    return ""


def _concerns(active: ActiveRollout, row: int) -> bool:
    """True if the rollout is open and selects the device, or has a report of the device."""
    if active.state.status not in OPEN:
        return False
    return active.scope.selected(row) or active.ledger.standing(row) is not DeviceStanding.NONE


def _away(row: int, fleet: Fleet) -> Wait:
    last_seen = fleet.last_seen(row)
    text = (
        "This device has never checked in."
        if last_seen is None
        else "This device is offline: the hub receives no check-ins from it."
    )
    return Wait(code=WaitCode.OFFLINE, text=text, since=last_seen)


def _in_rollout(
    row: int,
    fleet: Fleet,
    desired: Desired,
    active: ActiveRollout,
    *,
    decision: Offer | Blocked,
    refusal: Refusals,
) -> Wait | None:
    state, release = active.state, active.state.spec.release
    where = f"rollout {state.id} of release {release}"
    standing = active.ledger.standing(row)
    runs_it = active.release.number in fleet.numbers(row)
    misfit = active.scope.misfit(row)
    if misfit is Misfit.AGENT_ONE_MODEL or (misfit and standing is DeviceStanding.NONE):
        return Wait(
            code=WaitCode.INELIGIBLE,
            text=_misfit_text(misfit, active, fleet, row),
        )
    if state.status is Status.REVERTING and (runs_it or standing is DeviceStanding.TRIAL):
        want = desired.rollout(row, active.model)
        if want is None:
            return Wait(
                code=WaitCode.NO_PREVIOUS_RELEASE,
                text=f"The {where} is being rolled back, but this device has no previous release "
                f"and keeps {release}. Publish another release, then run "
                f"{plan_another(state.spec.model)}",
            )
        back = want.state.spec.release
        if isinstance(decision, Blocked) and decision.code is not WaitCode.DONE:
            start = f"The {where} is being rolled back; this device waits for release {back}"
            return _blocked(start, decision)
        return Wait(
            code=WaitCode.REVERTING,
            text=f"The {where} is being rolled back; this device is offered release {back} again.",
            since=state.since,
        )
    if (taken := _taken_back(row, active, runs_it=runs_it)) is not None:
        return taken
    if standing in EXCLUDED:
        words = active.ledger.reasons.detail(row).rstrip(". ")
        return Wait(
            code=WaitCode.NOT_OFFERED,
            text=f"{_EXCLUSIONS[standing].format(release=release)} in rollout {state.id}"
            f"{f' ({words})' if words else ''}, so this device is not offered it again. For the "
            f"reasons, run `edgefleet rollout show {state.id}`.",
        )
    if standing is DeviceStanding.TRIAL:
        shadow = active.ledger.reasons.shadows.get(row, "")
        return Wait(
            code=WaitCode.TRIAL,
            text=f"Release {release} is in trial on this device, which confirms after "
            f"{state.spec.gate.confirm_after_s:g} s of good health.{' ' if shadow else ''}{shadow}",
        )
    if standing is DeviceStanding.HEALTHY or runs_it:
        return None
    return _not_begun(row, fleet, desired, active, standing, decision=decision, refusal=refusal)


def _taken_back(row: int, active: ActiveRollout, *, runs_it: bool) -> Wait | None:
    """The wait of a device of a class from which alone the release was taken back."""
    part, state = active.taken.part_of(row), active.state
    if part is None or not part.key:
        return None
    release, rollout = state.spec.release, state.id
    where = f"rollout {rollout} took release {release} back from devices with {part.key}="
    if runs_it:
        return Wait(
            code=WaitCode.REVERTING,
            text=f"This device is offered its previous release again, because {where}{part.value}: "
            f"{part.text}",
            since=part.at,
        )
    return Wait(
        code=WaitCode.NOT_OFFERED,
        text=f"This device is not offered release {release}, because {where}{part.value}: "
        f"{part.text} Only a plan with `--again` offers it again. For the evidence, run "
        f"`edgefleet rollout show {rollout}`.",
        since=part.at,
    )


def _not_begun(
    row: int,
    fleet: Fleet,
    desired: Desired,
    active: ActiveRollout,
    standing: DeviceStanding,
    *,
    decision: Offer | Blocked,
    refusal: Refusals,
) -> Wait | None:
    state, release = active.state, active.state.spec.release
    wave = state.open_wave
    match state.status:
        case Status.PLANNED:
            return Wait(
                code=WaitCode.START,
                text=f"Rollout {state.id} is planned. Run `edgefleet rollout start {state.id}`.",
            )
        case Status.PAUSED:
            return Wait(
                code=WaitCode.PAUSED,
                text=f"Rollout {state.id} is paused. Run `edgefleet rollout resume {state.id}`.",
            )
        case Status.HALTED:
            return Wait(
                code=WaitCode.HALTED,
                text=f"Rollout {state.id} is halted. Run `edgefleet rollout resume {state.id}`.",
            )
        case Status.RUNNING if wave is not None and not active.inside(row):
            return Wait(
                code=WaitCode.NEXT_WAVE,
                text=f"This device is not in the open wave ({wave.name}) of rollout {state.id}; "
                f"a later wave gets release {release}.",
                since=wave.opened_at,
            )
        case Status.RUNNING if desired.is_excluded(row, active):
            return Wait(
                code=WaitCode.NOT_OFFERED,
                text=f"Release {release} failed, was refused or was taken back on this device in "
                "another rollout, so only a plan with `--again` offers it again. To find that "
                f"rollout, run `edgefleet model why {state.spec.model} {release}`.",
            )
        case Status.RUNNING if not _is_anothers(decision, active):
            return _offered(row, fleet, active, standing, decision=decision, refusal=refusal)
        case _:
            return None


def _is_also_offered(wait: Wait, decision: Offer | Blocked, active: ActiveRollout) -> bool:
    """True if another rollout offers the device a release, which ``wait`` does not mention."""
    by_another = isinstance(decision, Offer) and decision.rollout != active.state.id
    return by_another and wait.code is not WaitCode.REVERTING


def _is_anothers(decision: Offer | Blocked, active: ActiveRollout) -> bool:
    """True if another rollout or no rollout decides on the release of the device."""
    if isinstance(decision, Blocked):
        return decision.code in (WaitCode.DONE, WaitCode.NO_ROLLOUT)
    return decision.rollout != active.state.id


def _offered(
    row: int,
    fleet: Fleet,
    active: ActiveRollout,
    standing: DeviceStanding,
    *,
    decision: Offer | Blocked,
    refusal: Refusals,
) -> Wait:
    """The reason why the device waits before its download or, once staged, before its start."""
    release, phase = active.state.spec.release, fleet.models.phase(row, active.model)
    if phase in (Phase.FETCHING, Phase.PROVING):
        return _on_its_way(row, fleet, active, standing)
    blocked = refusal(active)
    if blocked is None and isinstance(decision, Blocked):
        blocked = decision
    if blocked is None:
        return _on_its_way(row, fleet, active, standing)
    has = "has downloaded the release and " if phase is Phase.STAGED else ""
    return _blocked(f"This device {has}waits to start release {release}", blocked)


def _blocked(start: str, blocked: Blocked) -> Wait:
    return Wait(
        code=blocked.code,
        text=f"{start}: {blocked.text}",
        since=blocked.since,
        until=blocked.until,
    )


def _on_its_way(row: int, fleet: Fleet, active: ActiveRollout, standing: DeviceStanding) -> Wait:
    release, phase = active.state.spec.release, fleet.models.phase(row, active.model)
    if standing is DeviceStanding.DEFERRED:
        words = active.ledger.deferrals.get(row, "").rstrip(". ")
        return Wait(
            code=WaitCode.DEFERRED,
            text=f"This device deferred release {release} and tries again"
            f"{f': {words}' if words else ''}.",
        )
    if phase in (Phase.FETCHING, Phase.PROVING):
        return Wait(
            code=WaitCode.FETCHING,
            text=f"This device is {phase.value} release {release}.",
        )
    return Wait(
        code=WaitCode.CHECK_IN,
        text=f"The next check-in of this device is offered release {release}.",
        since=fleet.last_seen(row),
    )


def _not_given(
    row: int, fleet: Fleet, desired: Desired, rollouts: tuple[ActiveRollout, ...]
) -> Wait | None:
    """The wait for the newest completed rollout that does not give this device its release.

    The device is a newcomer, or its agent has one model. None if there is no such rollout.
    """
    for active in rollouts:
        if active.state.status is not Status.COMPLETED:
            continue
        runs_it = active.release.number in fleet.numbers(row)
        if (taken := _taken_back(row, active, runs_it=runs_it)) is not None:
            return taken
        if _waits_for_bake(row, fleet, active):
            return _holdback_wait(active)
        if desired.rollout(row, active.model) is not None:
            return None
        misfit = active.scope.misfit(row)
        if misfit and misfit in _BY_OTHER_MODELS and active.scope.selected(row):
            text = _misfit_text(misfit, active, fleet, row)
            return Wait(code=WaitCode.INELIGIBLE, text=text)
        if not active.follows(row) and active.scope.eligible(row):
            return Wait(
                code=WaitCode.NOT_FOLLOWED,
                text=f"This device enrolled after the end of rollout {active.state.id} of release "
                f"{active.state.spec.release}, which does not follow newcomers. Run "
                f"{plan_another(active.state.spec.model, active.state.spec.release)}",
                since=active.state.ended_at,
            )
    return None


def _waits_for_bake(row: int, fleet: Fleet, active: ActiveRollout) -> bool:
    """True if the rollout gives the device its release later, because of its bake."""
    begun = active.ledger.standing(row) is not DeviceStanding.NONE
    if begun or active.release.number in fleet.numbers(row):
        return False
    return active.is_in_holdback(row) and active.scope.eligible(row) and active.follows(row)


def _holdback_wait(active: ActiveRollout) -> Wait:
    state, bake = active.state, active.state.bake
    has_alert = bake is not None and bake.alert is not None
    why = "an alert clears" if has_alert else "its bake has ended"
    until = None if has_alert or bake is None else bake.until
    return Wait(
        code=WaitCode.HOLDBACK,
        text=f"Rollout {state.id} gives this device release {state.spec.release} when {why}. Until "
        "then the device is a control.",
        since=state.ended_at,
        until=until,
    )


def _settled(
    row: int,
    fleet: Fleet,
    desired: Desired,
    model: str,
    *,
    decision: Offer | Blocked,
    refusal: Refusals,
) -> Wait:
    want = desired.rollout(row, model)
    number = fleet.set_of(row).by_model.get(model, NOTHING)
    running = fleet.models.release_named(number)
    runs = "nothing" if running is None else f"release {running[1]} of {running[0]}"
    if want is None:
        return Wait(code=WaitCode.NO_ROLLOUT, text=_NO_ROLLOUT.format(runs=runs))
    if number == want.release.number:
        return Wait(
            code=WaitCode.DONE, text=f"This device runs {runs}, as rollout {want.state.id} wants."
        )
    if isinstance(decision, Offer) and decision.action == "revert":
        return Wait(
            code=WaitCode.REVERTING,
            text=f"This device runs {runs}, which was rolled back; the next check-in is offered "
            f"release {decision.release}.",
            since=fleet.last_seen(row),
        )
    standing = want.ledger.standing(row)
    if standing >= DeviceStanding.TRIAL:
        return _on_its_way(row, fleet, want, standing)
    return _offered(row, fleet, want, standing, decision=decision, refusal=refusal)


_NO_ROLLOUT: Final = "No rollout covers this device; it runs {runs}."
_BY_OTHER_MODELS: Final = (Misfit.AGENT_ONE_MODEL, Misfit.MEMORY_FULL)
_SETTLED: Final = frozenset({WaitCode.DONE, WaitCode.NO_ROLLOUT})
_EXCLUSIONS = {
    DeviceStanding.FAILED: "Release {release} failed on this device",
    DeviceStanding.REFUSED: "This device refused release {release}",
    DeviceStanding.REVERTED: "This device reverted from release {release}",
}


def _misfit_text(misfit: Misfit, active: ActiveRollout, fleet: Fleet, row: int) -> str:
    manifest = active.release.manifest
    release = f"Release {manifest.release}"
    kit = fleet.kit(int(fleet.kit_ids[row]))
    variant = variants_of(manifest).get(kit.profile)
    if misfit is Misfit.AGENT_TOO_OLD:
        return (
            f"The agent speaks protocol {fleet.protocol(row)}, and this hub serves protocols "
            f"{OLDEST_SERVED} to {PROTOCOL}: update the agent to get release {manifest.release}."
        )
    if misfit is Misfit.AGENT_ONE_MODEL:
        others = sorted(fleet.set_of(row).by_model.keys() - {manifest.model})
        return (
            f"The agent has one model, and this device runs {', '.join(others)}: update the agent "
            f"to get release {manifest.release} of {manifest.model} beside it."
        )
    if variant is None:
        return f"{release} has no variant for profile {kit.profile} of this device."
    if misfit is Misfit.MEMORY_FULL:
        need = active.scope.room.need(row)
        return (
            f"{release} may use {need.limit_mib} MiB of memory; this device has {need.total_mib} "
            f"MiB for its models, and its other models may use {need.taken_mib} MiB of these."
        )
    if misfit is Misfit.DATATYPE_UNKNOWN:
        unknown = datatypes_of(variants_of(manifest)) - kit.datatypes
        return (
            f"{release} has tensors of datatype {', '.join(sorted(unknown))}; the agent of this "
            "device is from before that datatype and cannot read the manifest. Update the agent."
        )
    if misfit is Misfit.RUNTIME_MISSING:
        return (
            f"{release} needs runtime `{variant.runtime}` on profile {kit.profile}; this device "
            f"has `{', '.join(sorted(kit.runtimes))}`."
        )
    if misfit is Misfit.RUNTIME_TOO_OLD:
        return (
            f"{release} needs runtime `{variant.runtime}` {variant.min_runtime} or newer on "
            f"profile {kit.profile}; this device has {runtime_version(kit, variant.runtime)}."
        )
    if misfit is Misfit.COMPARISON_MISSING:
        name = comparison_name(manifest.golden.comparison)
        known = ", ".join(sorted(kit.comparisons)) or "none but that of classifiers"
        return (
            f"{release} is a {manifest.task} model whose golden set needs the comparison `{name}`; "
            f"this device has {known}. Update the agent, or install the plug-in."
        )
    return (
        f"{release} may use {variant.memory_limit_mib} MiB of memory on profile {kit.profile}; "
        f"this device has {kit.memory_mib} MiB."
    )


def explain_release(
    release: PublishedRelease, rollouts: tuple[ActiveRollout, ...], now: float
) -> WaitReport:
    """The state of a release. ``rollouts`` are the rollouts of the release, newest first."""
    manifest = release.manifest
    about = f"release/{manifest.model}/{manifest.release}"
    if not rollouts:
        none = (
            Wait(
                code=WaitCode.NO_ROLLOUT,
                text="The release is published, and no rollout of it is planned. Run "
                f"{plan_another(manifest.model, manifest.release)}",
            ),
        )
        return WaitReport(about=about, at=now, line=none[0].text, waits=none)
    waits = tuple(_rollout_line(active) for active in rollouts[:20])
    return WaitReport(about=about, at=now, line=waits[0].text, waits=waits)


_CODES = {
    Status.PLANNED: WaitCode.START,
    Status.RUNNING: WaitCode.SAMPLE,
    Status.PAUSED: WaitCode.PAUSED,
    Status.HALTED: WaitCode.HALTED,
    Status.REVERTING: WaitCode.REVERTING,
    Status.COMPLETED: WaitCode.DONE,
    Status.REVERTED: WaitCode.DONE,
    Status.REFUSED: WaitCode.DONE,
}


def _rollout_line(active: ActiveRollout) -> Wait:
    state = active.state
    again = f" {second_chance(state.spec)}" if state.spec.again else ""
    return Wait(
        code=_CODES[state.status],
        text=f"Rollout {state.id} is {state.status}: {state.text}{again}",
        since=state.since,
        devices=active.ledger.exposed,
    )
