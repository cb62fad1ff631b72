"""Which slot serves: activating, going back, restoring what died, and the looks in between."""

from typing import Final

import msgspec

from edgefleet.agent import limits, trial
from edgefleet.agent import quality_window as window
from edgefleet.agent import telemetry as tally
from edgefleet.agent.effect import Activate, MovePointer, Probe, RemoveSlot, StopServing
from edgefleet.agent.event import Activated, ActivationFailed, ServingSeen
from edgefleet.agent.report import report
from edgefleet.agent.state import Ended, Held, Slot, SlotName, active_held, slot
from edgefleet.agent.step_context import Turn
from edgefleet.agent.table import IN_TRIAL, Signal, Stage
from edgefleet.protocol.device import OutcomeKind, Reason
from edgefleet.protocol.serving import ServingStatus

# Bound once, as every step asks for them: Python 3.11 takes 0.2 us to find a member in its class.
_ACTIVATING: Final = Stage.ACTIVATING
_REVERTING: Final = Stage.REVERTING
_WATCHING: Final = Stage.WATCHING


def serves(status: ServingStatus | None, held: Held) -> bool:
    """True when ``status`` says that this very release answers requests."""
    return (
        status is not None
        and status.ready
        and (status.model, status.release) == (held.model, held.release)
        and status.artifact_sha256 == held.variant.artifact.sha256
    )


def activate(turn: Turn, name: SlotName) -> None:
    """Ask for the slot to be served; replaces any activation under way."""
    held = slot(turn.state, name).held
    assert held is not None, f"slot {name} is empty"  # noqa: S101 - a defect, not input
    job = turn.new_job()
    turn.forgettable(switch=job, switch_at=None)
    turn.do(Activate(job=job, slot=name, held=held))


def restore(turn: Turn) -> None:
    """Have the confirmed slot served again, unless that is being done."""
    if turn.soft.switch is None and turn.state.active is not None:
        activate(turn, turn.state.active)


def start_trial(turn: Turn) -> None:
    """The hub has admitted the start: switch."""
    turn.move(Signal.ADMITTED)
    turn.change_attempt(tries=1, incumbent_confidence=_incumbent_confidence(turn))
    activate(turn, turn.attempt.slot)


def go_back(turn: Turn, reason: str, detail: str) -> None:
    """The trial is over, and not well. The failure is told at once; the way back follows."""
    attempt = turn.attempt
    recalled = reason == Reason.RECALLED
    if attempt.action == "revert":
        report(turn, OutcomeKind.REFUSED, reason, detail)
        turn.forgettable(offers_after=turn.now + limits.RETURN_RETRY_S)
    elif recalled:
        turn.change_attempt(recalled=True)
    else:
        report(turn, OutcomeKind.TRIAL_FAILED, reason, detail)
    if attempt.action == "install":
        ended = Ended(rollout=attempt.rollout, manifest_sha256=attempt.manifest_sha256)
        turn.keep(ended=(*turn.state.ended, ended)[-limits.ENDED_ATTEMPTS :])
    turn.move(Signal.FAILED)
    turn.forgettable(watch=None)
    return_to_active(turn)


def return_to_active(turn: Turn) -> None:
    """Serve the confirmed slot; with none, stop serving."""
    turn.forgettable(switch_failures=0)
    if turn.state.active is not None:
        activate(turn, turn.state.active)
    else:
        turn.forgettable(switch=None, switch_at=None)
        turn.do(StopServing())


def on_activated(turn: Turn, event: Activated) -> None:
    if event.job != turn.soft.switch:
        return
    turn.forgettable(switch=None, switch_at=None)
    _look(turn, event.status)
    state = turn.state
    if state.stage is _ACTIVATING and turn.attempt.action == "revert":
        _settle_return(turn)
    elif state.stage is _ACTIVATING:
        turn.move(Signal.ACTIVATED)
        turn.change_attempt(switched=True)
        turn.forgettable(watch=trial.begin(event.status, turn.now))
        turn.do(MovePointer(slot=turn.attempt.slot))
    elif state.stage is _REVERTING:
        _settle_reverting(turn)
    elif state.active is not None:
        turn.do(MovePointer(slot=state.active))


def on_activation_failed(turn: Turn, event: ActivationFailed) -> None:
    if event.job != turn.soft.switch:
        return
    turn.forgettable(switch=None)
    if turn.state.stage is _ACTIVATING:
        go_back(turn, event.reason, event.detail)
        return
    _retry_later(turn, event.draw)


def on_serving_seen(turn: Turn, event: ServingSeen) -> None:
    turn.forgettable(probing=False, probe_at=None)
    if event.status is not None:
        _look(turn, event.status)
    elif not event.alive:
        turn.forgettable(serving=None)
    state = turn.state
    if state.stage is _WATCHING:
        _watch(turn, event)
    elif state.stage is _REVERTING and state.active is None:
        if event.alive:
            turn.do(StopServing())
        else:
            _settle_reverting(turn)
    elif state.stage is not _ACTIVATING and turn.soft.switch is None:
        _keep_serving(turn, event)


def on_woke(turn: Turn) -> None:
    """Do what is due: a restore, a look."""
    soft = turn.soft
    if soft.switch_at is not None and soft.switch_at <= turn.now:
        turn.forgettable(switch_at=None)
        restore(turn)
    if soft.probe_at is not None and soft.probe_at <= turn.now and not soft.probing:
        turn.forgettable(probing=True, probe_at=None)
        turn.do(Probe())


def plan_probe(turn: Turn) -> None:
    """See that a look at the serving process is planned while there is something to look at."""
    state, soft = turn.state, turn.soft
    wanted = state.active is not None or state.stage in IN_TRIAL or state.stage is _REVERTING
    if not wanted or soft.probing:
        if soft.probe_at is not None:
            turn.forgettable(probe_at=None)
    else:
        pause = state.pace.probe_trial_s if state.stage is _WATCHING else state.pace.probe_idle_s
        at = turn.now + pause
        if soft.probe_at is None or soft.probe_at > at:
            turn.forgettable(probe_at=at)


def _incumbent_confidence(turn: Turn) -> float | None:
    """Live mean top score of the release to be left; None without enough of them."""
    held, status = active_held(turn.state), turn.soft.serving
    candidate = turn.attempt.held
    if held is None or status is None or candidate is None or candidate.model != held.model:
        return None
    if status.release != held.release:
        return None
    count = status.stats.confidence_count
    if count < max(1, candidate.quality.min_requests):
        return None
    return status.stats.confidence_sum / count


def _look(turn: Turn, status: ServingStatus) -> None:
    soft = turn.soft
    grown = tally.growth(soft.mark, status)
    tallies, mark = tally.fold(soft.tallies, soft.mark, status, grown)
    windows = window.advance(soft.windows, status, grown, turn.now)
    turn.forgettable(serving=status, tallies=tallies, mark=mark, windows=windows)


def _watch(turn: Turn, event: ServingSeen) -> None:
    attempt, watch = turn.attempt, turn.soft.watch
    held = slot(turn.state, attempt.slot).held
    if watch is None or held is None:
        return
    finding = trial.judge(
        attempt, held.quality, watch, event.status, alive=event.alive, now=turn.now
    )
    match finding:
        case trial.Sick(reason, detail):
            go_back(turn, reason, detail)
        case trial.Watching(watch):
            turn.forgettable(watch=watch)
        case trial.Healthy():
            _confirm(turn)


def _keep_serving(turn: Turn, event: ServingSeen) -> None:
    """Outside a trial the confirmed release serves; what died or was swapped is put right."""
    held = active_held(turn.state)
    if held is None:
        return
    if serves(event.status, held):
        turn.forgettable(switch_failures=0)
    missed = turn.soft.missed + 1 if event.status is None else 0
    turn.forgettable(missed=missed)
    swapped = event.status is not None and event.status.ready and not serves(event.status, held)
    if swapped or not event.alive or missed >= limits.MISSED_PROBES:
        turn.forgettable(missed=0)
        _retry_later(turn, event.draw)


def _confirm(turn: Turn) -> None:
    name = turn.attempt.slot
    new = slot(turn.state, name)
    report(
        turn, OutcomeKind.CONFIRMED, accuracy=new.accuracy, accuracy_before=_accuracy_before(turn)
    )
    _make_active(turn, name)
    turn.forgettable(watch=None)
    turn.move(Signal.SETTLED)
    turn.keep(attempt=None)


def _accuracy_before(turn: Turn) -> float | None:
    """That of the release before on the very same golden set; None where the set is another."""
    active, new = turn.state.active, turn.attempt.held
    if active is None or new is None:
        return None
    before = slot(turn.state, active)
    same = before.held is not None and before.held.golden.artifact == new.golden.artifact
    return before.accuracy if same else None


def _settle_return(turn: Turn) -> None:
    """The release that the hub offered back serves: no trial, it had stood one."""
    name = turn.attempt.slot
    report(turn, OutcomeKind.REVERTED, Reason.RECALLED)
    _make_active(turn, name)
    turn.move(Signal.SETTLED)
    turn.keep(attempt=None)
    turn.do(MovePointer(slot=name))


def _settle_reverting(turn: Turn) -> None:
    attempt, active = turn.attempt, turn.state.active
    if attempt.recalled:
        report(turn, OutcomeKind.REVERTED, Reason.RECALLED)
    turn.forgettable(checkin_at=turn.now)  # the hub waits for every device that goes back
    turn.move(Signal.SETTLED)
    turn.keep(attempt=None)
    turn.do(MovePointer(slot=active))
    if attempt.action == "install":
        turn.set_slot(attempt.slot, Slot())
        turn.do(RemoveSlot(slot=attempt.slot))


def _make_active(turn: Turn, name: SlotName) -> None:
    turn.set_slot(name, msgspec.structs.replace(slot(turn.state, name), confirmed=True))
    turn.keep(active=name)


def _retry_later(turn: Turn, draw: float) -> None:
    if turn.soft.switch_at is not None:
        return
    failures = turn.soft.switch_failures
    pause = min(limits.RESTART_MAX_S, limits.RESTART_FIRST_S * 2.0 ** min(failures, 16))
    turn.forgettable(switch_at=turn.now + pause * (0.5 + 0.5 * draw), switch_failures=failures + 1)
