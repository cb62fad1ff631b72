"""Why a device runs what it runs, and where a release stands."""

from collections.abc import Callable

from edgefleet.protocol.device import Offer, Phase
from edgefleet.protocol.rollout import Status
from edgefleet.protocol.version import OLDEST, PROTOCOL, starts_by_itself
from edgefleet.protocol.why import Wait, WaitCode, WaitReport
from edgefleet.rollout.active import ActiveRollout, PublishedRelease
from edgefleet.rollout.constraints.reservations import Blocked
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.evidence.ledger import EXCLUDED, DeviceStanding
from edgefleet.rollout.fleet.eligibility import Misfit
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle.state import OPEN
from edgefleet.rollout.lifecycle.typed_replace import replace
from edgefleet.rollout.why.rollout import plan_another

Refusals = Callable[[ActiveRollout], Blocked | None]


def explain_device(
    row: int,
    fleet: Fleet,
    desired: Desired,
    rollouts: tuple[ActiveRollout, ...],
    now: float,
    *,
    decision: Offer | Blocked,
    refusal: Refusals,
) -> WaitReport:
    """Why this device runs what it runs. ``rollouts`` newest first.

    ``decision`` is what its next check-in is answered: ``Engine.decide``. ``refusal`` gives the
    reason why the device may not start now what a rollout gives it.
    """
    waits: list[Wait] = []
    if not fleet.online(row, now):
        waits.append(_away(row, fleet))
    concerning = next((active for active in rollouts if _concerns(active, row)), None)
    wait = None
    if concerning is not None:
        wait = _in_rollout(row, fleet, desired, concerning, decision=decision, refusal=refusal)
        if wait is not None and _is_also_offered(wait, decision, concerning):
            waits.append(wait)  # why the open rollout gives nothing; another one gives something
            wait = _settled(row, fleet, desired, decision, refusal)
    wait = wait or _not_followed(row, desired, rollouts)
    waits.append(wait or _settled(row, fleet, desired, decision, refusal))
    return WaitReport(
        about=f"device/{fleet.name(row)}", at=now, line=waits[-1].text, waits=tuple(waits)
    )


def _concerns(active: ActiveRollout, row: int) -> bool:
    """An open rollout on this device, or one that is taking back what it runs."""
    if active.state.status not in OPEN:
        return False
    return active.scope.selected(row) or active.ledger.standing(row) is not DeviceStanding.NONE


def _away(row: int, fleet: Fleet) -> Wait:
    seen = fleet.last_seen(row)
    text = "It has never checked in." if seen is None else "It does not check in."
    return Wait(code=WaitCode.OFFLINE, text=text, since=seen)


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
    runs_it = fleet.running_id(row) == active.release.number
    misfit = active.scope.misfit(row)
    if misfit is not None and standing is DeviceStanding.NONE:
        return Wait(
            code=WaitCode.INELIGIBLE,
            text=_MISFITS[misfit].format(release=release, profile=fleet.profile(row)),
        )
    if state.status is Status.REVERTING and (runs_it or standing is DeviceStanding.TRIAL):
        want = desired.rollout(row)
        if want is None:
            return Wait(
                code=WaitCode.NO_PREVIOUS_RELEASE,
                text=f"The {where} is taken back, but this device has no previous release and "
                f"keeps {release}. Publish another release, then run "
                f"{plan_another(state.spec.model)}",
            )
        back = want.state.spec.release
        if isinstance(decision, Blocked) and decision.code is not WaitCode.DONE:
            return _blocked(f"The {where} is taken back; it waits for release {back}", decision)
        return Wait(
            code=WaitCode.REVERTING,
            text=f"The {where} is taken back; it is offered release {back} again.",
            since=state.since,
        )
    if standing in EXCLUDED:
        return Wait(
            code=WaitCode.NOT_OFFERED,
            text=f"{_EXCLUSIONS[standing].format(release=release)} in rollout {state.id}, so this "
            f"device is not offered it again. For the reasons, run `edgefleet rollout show "
            f"{state.id}`.",
        )
    if standing is DeviceStanding.TRIAL:
        return Wait(
            code=WaitCode.TRIAL,
            text=f"It runs release {release} on trial and confirms after "
            f"{state.spec.gate.confirm_after_s:g} s of good health.",
        )
    if standing is DeviceStanding.HEALTHY or runs_it:
        return None
    wait = _not_begun(row, fleet, desired, active, standing, decision=decision, refusal=refusal)
    if wait is not None and starts_by_itself(fleet.protocol(row)):
        return replace(wait, text=f"{wait.text} {_BY_ITSELF}")
    return wait


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
            return Wait(code=WaitCode.START, text=f"Rollout {state.id} has not been started.")
        case Status.PAUSED:
            return Wait(code=WaitCode.PAUSED, text=f"Rollout {state.id} is paused.")
        case Status.HALTED:
            return Wait(code=WaitCode.HALTED, text=f"Rollout {state.id} is halted.")
        case Status.RUNNING if wave is not None and not active.inside(row):
            return Wait(
                code=WaitCode.NEXT_WAVE,
                text=f"It is not in the open wave ({wave.name}) of rollout {state.id}; "
                f"it gets release {release} in a later one.",
                since=wave.opened_at,
            )
        case Status.RUNNING if desired.is_excluded(row, active):
            return Wait(
                code=WaitCode.NOT_OFFERED,
                text=f"Release {release} failed, was refused or was reverted on this device in an "
                "earlier rollout, so it is not offered again. To find that rollout, run `edgefleet "
                f"model why {state.spec.model} {release}`.",
            )
        case Status.RUNNING if not _is_anothers(decision, active):
            return _offered(row, fleet, active, standing, decision=decision, refusal=refusal)
        case _:
            return None


def _is_also_offered(wait: Wait, decision: Offer | Blocked, active: ActiveRollout) -> bool:
    """True when another rollout offers the device something, which ``wait`` does not say."""
    by_another = isinstance(decision, Offer) and decision.rollout != active.state.id
    return by_another and wait.code is not WaitCode.REVERTING


def _is_anothers(decision: Offer | Blocked, active: ActiveRollout) -> bool:
    """True when another rollout decides what the device gets, or none does."""
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
    """What it waits for before it may download or, once all is there, start."""
    release, phase = active.state.spec.release, fleet.phase(row)
    if phase in (Phase.FETCHING, Phase.PROVING):
        return _on_its_way(row, fleet, release, standing)
    blocked = refusal(active)
    if blocked is None and isinstance(decision, Blocked):
        blocked = decision
    if blocked is None:
        return _on_its_way(row, fleet, release, standing)
    staged = "It has all of it and waits" if phase is Phase.STAGED else "It waits"
    return _blocked(f"{staged} to start release {release}", blocked)


def _blocked(start: str, blocked: Blocked) -> Wait:
    return Wait(
        code=blocked.code,
        text=f"{start}: {blocked.text}",
        since=blocked.since,
        until=blocked.until,
    )


def _on_its_way(row: int, fleet: Fleet, release: str, standing: DeviceStanding) -> Wait:
    if fleet.phase(row) in (Phase.FETCHING, Phase.PROVING):
        return Wait(
            code=WaitCode.FETCHING, text=f"It is {fleet.phase(row).value} release {release}."
        )
    if standing is DeviceStanding.DEFERRED:
        return Wait(code=WaitCode.CHECK_IN, text=f"It put release {release} off; it tries again.")
    return Wait(
        code=WaitCode.CHECK_IN,
        text=f"It is offered release {release} when it checks in next.",
        since=fleet.last_seen(row),
    )


def _not_followed(row: int, desired: Desired, rollouts: tuple[ActiveRollout, ...]) -> Wait | None:
    """The newest completed rollout that would be for this newcomer, if only it took any."""
    if desired.rollout(row) is not None:
        return None
    for active in rollouts:
        completed = active.state.status is Status.COMPLETED
        if completed and not active.follows(row) and active.scope.eligible(row):
            return Wait(
                code=WaitCode.NOT_FOLLOWED,
                text=f"It enrolled after rollout {active.state.id} of release "
                f"{active.state.spec.release} ended, which takes no newcomers: plan a rollout.",
                since=active.state.ended_at,
            )
    return None


def _settled(
    row: int, fleet: Fleet, desired: Desired, decision: Offer | Blocked, refusal: Refusals
) -> Wait:
    want = desired.rollout(row)
    running = fleet.running(row)
    runs = "nothing" if running is None else f"release {running[1]} of {running[0]}"
    if want is None:
        return Wait(
            code=WaitCode.NO_ROLLOUT, text=f"No rollout says what it should run; it runs {runs}."
        )
    if fleet.running_id(row) == want.release.number:
        return Wait(code=WaitCode.DONE, text=f"It runs {runs}, as rollout {want.state.id} says.")
    if isinstance(decision, Offer) and decision.action == "revert":
        return Wait(
            code=WaitCode.REVERTING,
            text=f"It runs {runs}, which is taken back; it is offered release {decision.release} "
            "when it checks in next.",
            since=fleet.last_seen(row),
        )
    standing = want.ledger.standing(row)
    if standing >= DeviceStanding.TRIAL:
        return _on_its_way(row, fleet, want.state.spec.release, standing)
    return _offered(row, fleet, want, standing, decision=decision, refusal=refusal)


_EXCLUSIONS = {
    DeviceStanding.FAILED: "Release {release} failed on this device",
    DeviceStanding.REFUSED: "This device refused release {release}",
    DeviceStanding.REVERTED: "This device reverted from release {release}",
}
_MISFITS = {
    Misfit.NO_VARIANT: "Release {release} has no variant for its profile {profile}.",
    Misfit.RUNTIME_MISSING: "It has not the runtime that release {release} needs on {profile}.",
    Misfit.MEMORY_TOO_SMALL: "It has less memory than release {release} may take on {profile}.",
    Misfit.AGENT_TOO_OLD: "Its agent is too old to be given release {release}, or newer than this "
    f"hub, which speaks protocols {OLDEST} to {PROTOCOL}: update it.",
}
_BY_ITSELF = (
    "Its agent is of the version before: it starts by itself, so its place is granted with the "
    "offer."
)


def explain_release(
    release: PublishedRelease, rollouts: tuple[ActiveRollout, ...], now: float
) -> WaitReport:
    """Where a release stands. ``rollouts`` are its rollouts, newest first."""
    manifest = release.manifest
    about = f"release/{manifest.model}/{manifest.release}"
    if not rollouts:
        none = (
            Wait(
                code=WaitCode.NO_ROLLOUT,
                text="It is published; no rollout is planned: edgefleet rollout plan "
                f"--model {manifest.model} --release {manifest.release}",
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
    return Wait(
        code=_CODES[state.status],
        text=f"Rollout {state.id} is {state.status}: {state.text}",
        since=state.since,
        devices=active.ledger.exposed,
    )
