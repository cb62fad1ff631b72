"""Switches what the device serves: trials, rollbacks, restoring a dead process, and probes.

The serving process is always told the whole wanted set: the confirmed release of each model, and
the release on trial. A step that changes the set calls ``request_apply``; the Apply itself is the
last part of the step.
"""

from typing import Final

from edgefleet.agent import (
    cost_window,
    hang,
    incumbent,
    isolation,
    limits,
    load,
    serving_health,
    serving_version,
    trial,
)
from edgefleet.agent import quality_window as window
from edgefleet.agent import telemetry as tally
from edgefleet.agent.checkin import report
from edgefleet.agent.effect import (
    Apply,
    MovePointer,
    Probe,
    RemoveSlot,
    StopServing,
    WantedModel,
    WantedRelease,
    WantedShadow,
)
from edgefleet.agent.event import Activated, ActivationFailed, ServingProbed
from edgefleet.agent.state import (
    Ended,
    InstalledRelease,
    ModelState,
    Neighbour,
    Slot,
    SlotName,
    Watch,
    active_release,
    pointer,
    slot,
)
from edgefleet.agent.step_context import DeviceContext, StepContext
from edgefleet.agent.table import IN_TRIAL, Signal, Stage
from edgefleet.agent.typed_replace import replace
from edgefleet.protocol.device import OutcomeKind, Reason, Switch
from edgefleet.protocol.serving import ServingStatus, model_status

# Bound once, as every step uses them: Python 3.11 takes 0.2 us to find a member in its class.
_ACTIVATING: Final = Stage.ACTIVATING
_REVERTING: Final = Stage.REVERTING
_SHADOWING: Final = Stage.SHADOWING
_WATCHING: Final = Stage.WATCHING
_SWITCHING: Final = (_ACTIVATING, _WATCHING, _REVERTING)


def serves(status: ServingStatus | None, installed: InstalledRelease) -> bool:
    """Whether the process with ``status`` serves this release as confirmed."""
    own = model_status(status, installed.model)
    return (
        own is not None
        and own.ready
        and not own.on_trial
        and own.release == installed.release
        and own.artifact_sha256 == installed.variant.artifact.sha256
    )


# The wanted set.


def request_apply(device: DeviceContext) -> None:
    """Apply the wanted set at the end of this step."""
    device.is_apply_due = True


def restore(device: DeviceContext) -> None:
    """Apply the wanted set again, unless an Apply is in progress."""
    if device.soft.switch is None:
        device.is_apply_due = True


def apply_wanted(device: DeviceContext) -> None:
    """Request an Apply if one is due. It replaces the Apply in progress."""
    if not device.is_apply_due:
        return
    isolated = tuple([one.model for one in device.soft.crashes.isolated])
    waiting = tuple([name for name, soft in device.soft_models.items() if soft.waits_for_disk])
    models = wanted(device.models, isolated, waiting)
    if models:
        job = device.new_job()
        device.forgettable(switch=job, switch_at=None)
        status = device.soft.serving
        anew = status is not None and hang.is_stuck(status)
        generation = int(device.now * 1000)
        swap = not anew and serving_version.is_swap_due(device, status)
        if swap:
            device.forgettable(swapped=True)
        device.do(Apply(job=job, generation=generation, models=models, anew=anew, swap=swap))
    else:
        device.forgettable(switch=None, switch_at=None)
        device.do(StopServing())


def wanted(
    models: dict[str, ModelState], isolated: tuple[str, ...] = (), waiting: tuple[str, ...] = ()
) -> tuple[WantedModel, ...]:
    """The set that the device should serve now. ``isolated`` models have workers.

    The trial of a ``waiting`` model is not in it.
    """
    return tuple(
        found
        for name in sorted(models)
        if (
            found := _wanted(
                name, models[name], is_isolated=name in isolated, waits=name in waiting
            )
        )
    )


def _wanted(name: str, state: ModelState, *, is_isolated: bool, waits: bool) -> WantedModel | None:
    confirmed = _release(state, state.active)
    trial_release = None
    attempt = state.attempt
    if attempt is not None and state.stage in IN_TRIAL and not waits:
        if attempt.action == "revert":  # a return to a release that the device has confirmed before
            confirmed = _release(state, attempt.slot)
        else:
            trial_release = _release(state, attempt.slot)
    if confirmed is None and trial_release is None:
        return None
    return WantedModel(
        model=name,
        confirmed=confirmed,
        trial=trial_release,
        isolation="process" if is_isolated else "shared",
        shadow=_shadow(state),
    )


def _shadow(state: ModelState) -> WantedShadow | None:
    attempt = state.attempt
    if attempt is None or attempt.shadow is None or state.stage is not _SHADOWING:
        return None
    release = _release(state, attempt.slot)
    return None if release is None else WantedShadow(release=release, share=attempt.shadow.share)


def _release(state: ModelState, name: SlotName | None) -> WantedRelease | None:
    installed = slot(state, name).installed if name else None
    return WantedRelease(slot=name, installed=installed) if name and installed else None


# A trial.


def start_trial(context: StepContext) -> None:
    """Activate the admitted release."""
    context.device.forgettable(switch_failures=0)
    context.move(Signal.ADMITTED)
    context.change_attempt(tries=1)
    context.change_attempt(**incumbent.before_trial(context))
    request_apply(context.device)


def go_back(context: StepContext, reason: str, detail: str) -> None:
    """End the trial as failed: report the failure, then activate the confirmed slot."""
    attempt = context.attempt
    recalled = reason == Reason.RECALLED
    if attempt.action == "revert":
        report(context, OutcomeKind.REFUSED, reason, detail)
        context.forgettable(offers_after=context.now + limits.RETURN_RETRY_S)
    elif recalled:
        context.change_attempt(recalled=True)
    else:
        report(context, OutcomeKind.TRIAL_FAILED, reason, detail)
    if attempt.action == "install":
        ended = Ended(rollout=attempt.rollout, manifest_sha256=attempt.manifest_sha256)
        context.keep(ended=(*context.state.ended, ended)[-limits.ENDED_ATTEMPTS :])
    context.move(Signal.FAILED)
    context.forgettable(watch=None, waits_for_disk=False)
    return_to_active(context)


def return_to_active(context: StepContext) -> None:
    """Serve the confirmed release of this model again. Without one, do not serve the model."""
    context.device.forgettable(switch_failures=0)
    request_apply(context.device)


def on_activated(device: DeviceContext, event: Activated) -> None:
    isolated = device.soft.crashes.isolated
    serving_health.note_ends(device, event.ends, event.ran)
    if event.ran:
        isolation.on_process_ended(device, event.ran, hung=event.hung)
    if device.soft.crashes.isolated != isolated:
        request_apply(device)  # the Apply has found the end of the process, and who is to blame
    if event.job != device.soft.switch:
        return
    device.forgettable(switch=None, switch_at=None)
    before = device.soft.serving
    serving_health.observe(device, event.status)
    _count_served(device, event.status)
    _end_windows(device, before, event.status)
    for name, state in tuple(device.models.items()):
        if _waits_for_disk(device, name):
            continue
        if state.stage is _ACTIVATING and device.model(name).attempt.action == "revert":
            _settle_return(device.model(name))
        elif state.stage is _ACTIVATING:
            _begin_watching(device.model(name), event.status)
        elif state.stage is _REVERTING:
            _settle_reverting(device.model(name))
        elif state.stage is _WATCHING:
            _watch_anew(device.model(name), event.status)


def _begin_watching(context: StepContext, status: ServingStatus) -> None:
    context.move(Signal.ACTIVATED)
    context.change_attempt(switched=True)
    context.forgettable(watch=_watch_of(context, status))


def _watch_of(context: StepContext, status: ServingStatus) -> Watch:
    device = context.device
    neighbours = tuple(
        found
        for name in device.models
        if name != context.model and (found := _neighbour(device.model(name)))
    )
    return trial.begin(context.attempt, status, device.now, neighbours, device.soft.load)


def on_activation_failed(device: DeviceContext, event: ActivationFailed) -> None:
    """End the trial, if the failure is that of its release. Otherwise apply again after a pause."""
    serving_health.note_ends(device, event.ends, event.ran)
    if device.soft.serving is None:  # it did not start
        serving_health.observe(device, None, cause=event.detail)
    if event.ran:
        isolation.on_process_ended(device, event.ran, hung=event.hung)
    if event.job != device.soft.switch:
        return
    device.forgettable(switch=None)
    for name in _in_stage(device, _ACTIVATING):
        context = device.model(name)
        failures = device.soft.switch_failures
        if event.model == name:
            go_back(context, event.reason, event.detail)
        elif context.attempt.action == "revert":
            continue  # the device has confirmed this release before, and another one failed
        elif event.model and failures >= limits.FOREIGN_FAILURES:
            detail = f"With this release {event.model} could not be served: {event.detail}"
            go_back(context, Reason.NEIGHBOUR, detail)
        elif not event.model and failures >= limits.MISSED_PROBES:
            # A model in the shared process may have ended it: the trial is in a worker.
            go_back(context, event.reason, event.detail)
    for name in _in_stage(device, _WATCHING):
        if event.model == name:  # the process was started again, and cannot load it any more
            go_back(device.model(name), event.reason, event.detail)
    if not device.is_apply_due:
        _retry_later(device, event.draw)


# Probes.


def on_serving_probed(device: DeviceContext, event: ServingProbed) -> None:
    serving_health.note_ends(device, event.ends, event.ran)
    if event.status is not None or not event.alive:
        serving_health.observe(device, event.status)
    if event.ran:
        isolation.on_process_ended(device, event.ran, hung=event.hung)
    device.forgettable(board=event.board)
    if event.status is not None:
        _count_served(device, event.status)
    elif not event.alive:
        device.forgettable(serving=None)
    device.forgettable(probing=False, probe_at=None)
    _end_hung(device, event.status)
    is_switching = is_wanted = False
    for name, state in device.models.items():
        if _waits_for_disk(device, name):
            is_wanted = is_wanted or state.active is not None
        elif state.stage is _WATCHING or state.stage is _ACTIVATING:
            is_switching = True
        elif state.active is not None:
            is_wanted = True
    if is_switching:
        for name in _in_stage(device, _WATCHING):
            _watch(device.model(name), event)
        if device.soft.switch is None and not device.is_apply_due:
            _keep_neighbours(device, event)
    elif device.soft.switch is None and is_wanted:
        _keep_serving(device, event)
    elif device.soft.switch is None:
        _settle_stopped(device, event)


def _end_hung(device: DeviceContext, status: ServingStatus | None) -> None:
    """End the requests that do not end in the shared process."""
    if status is None or device.soft.switch is not None:
        return
    if hang.isolate_hung(device, status) or hang.is_stuck(status):
        request_apply(device)


def _in_stage(device: DeviceContext, stage: Stage) -> list[str]:
    """The models in this stage, without those whose trial waits for the disk."""
    return [
        name
        for name, state in device.models.items()
        if state.stage is stage and not _waits_for_disk(device, name)
    ]


def _waits_for_disk(device: DeviceContext, name: str) -> bool:
    """Whether the trial of this model waits for a disk that can be written."""
    if not device.soft.disk_fault or name not in device.soft_models:
        return False
    return device.soft_models[name].waits_for_disk


def on_timer_fired(device: DeviceContext) -> None:
    """Restore or probe, if that is due."""
    soft = device.soft
    if soft.switch_at is not None and soft.switch_at <= device.now:
        device.forgettable(switch_at=None)
        restore(device)
    if soft.probe_at is not None and soft.probe_at <= device.now and not soft.probing:
        device.forgettable(probing=True, probe_at=None)
        device.do(Probe())


def plan_probe(device: DeviceContext) -> None:
    """Plan a probe of the serving process while it should run."""
    soft, pace, is_wanted = device.soft, device.state.pace, False
    pause = pace.probe_idle_s
    for state in device.models.values():
        stage = state.stage
        if stage is _WATCHING or stage is _SHADOWING or soft.missed:
            pause = pace.probe_trial_s
        if state.active is not None or stage in IN_TRIAL or stage is _REVERTING:
            is_wanted = True
    if not is_wanted or soft.probing:
        if soft.probe_at is not None:
            device.forgettable(probe_at=None)
    else:
        at = device.now + pause
        if soft.probe_at is None or soft.probe_at > at:
            device.forgettable(probe_at=at)


def _count_served(device: DeviceContext, status: ServingStatus) -> None:
    device.forgettable(serving=status, load=load.follow(device.soft.load, status, device.now))
    for own in status.models:
        if own.model not in device.models:
            continue
        context = device.model(own.model)
        soft = context.soft
        grown = tally.growth(soft.mark, status.pid, own)
        tallies, mark = tally.fold(soft.tallies, status.pid, own, grown)
        is_new = soft.mark is not None and soft.mark.pid != status.pid
        windows = window.advance(soft.windows, own, grown, device.now, is_new_process=is_new)
        costs = cost_window.advance(soft.costs, own, status.pid, device.soft.board, device.now)
        context.forgettable(tallies=tallies, mark=mark, windows=windows, costs=costs)


def _end_windows(
    device: DeviceContext, before: ServingStatus | None, status: ServingStatus
) -> None:
    """End the quality window of each model after a switch of another one.

    A window that spans a switch would compare two rollouts at once.
    """
    if len(device.models) == 1:
        return
    served, was = _releases(status), _releases(before)
    switches = tuple(
        Switch(model=name, release=served.get(name))
        for name in sorted(served.keys() | was.keys())
        if served.get(name) != was.get(name)
    )
    for name in device.models:
        if name in served and served[name] == was.get(name):
            context = device.model(name)
            soft = context.soft
            windows = window.end(soft.windows, device.now, switches)
            costs = cost_window.restart(soft.costs) if switches else soft.costs
            context.forgettable(windows=windows, costs=costs)


def _releases(status: ServingStatus | None) -> dict[str, str]:
    """The release of each model that is served."""
    return {} if status is None else {one.model: one.release for one in status.models}


def _neighbour(context: StepContext) -> Neighbour | None:
    """The comparison values of another model. None if it had too few requests."""
    before, mark = context.soft.windows.full, context.soft.mark
    if mark is None or before is None or before.release != mark.release:
        return None
    return Neighbour(start=mark, before=before)


def _watch(context: StepContext, event: ServingProbed) -> None:
    attempt, watch = context.attempt, context.soft.watch
    installed = slot(context.state, attempt.slot).installed
    if watch is None or installed is None or context.device.soft.switch is not None:
        return
    finding = trial.judge(
        attempt, installed.quality, watch, event.status, alive=event.alive, now=context.now
    )
    match finding:
        case trial.Sick(reason, detail):
            go_back(context, reason, detail)
        case trial.Interrupted():
            _retry_later(context.device, event.draw)
        case trial.Watching(watch):
            context.forgettable(watch=watch)
        case trial.Healthy():
            _confirm(context)


def _watch_anew(context: StepContext, status: ServingStatus) -> None:
    """Watch a trial again if the serving process was started again. The trial's bound stays."""
    watch = context.soft.watch
    if watch is not None and watch.start.pid != status.pid:
        anew = _watch_of(context, status)
        context.forgettable(watch=replace(anew, since=watch.since))
        context.device.forgettable(switch_failures=0)


def _keep_serving(device: DeviceContext, event: ServingProbed) -> None:
    """Keep the wanted set served outside a trial, after a crash or a foreign swap."""
    soft, status = device.soft, event.status
    is_served = all(
        serves(status, installed)
        for state in device.models.values()
        if (installed := active_release(state)) is not None
    )
    if is_served and soft.switch_failures:
        device.forgettable(switch_failures=0)
    if is_served and serving_version.is_swap_due(device, status):
        request_apply(device)
    missed = soft.missed + 1 if status is None else 0
    is_swapped = status is not None and not is_served
    if is_swapped or not event.alive or missed >= limits.MISSED_PROBES:
        missed = 0
        _retry_later(device, event.draw)
    if missed != soft.missed:
        device.forgettable(missed=missed)


def _keep_neighbours(device: DeviceContext, event: ServingProbed) -> None:
    """Apply the wanted set again if a model that has no trial is not served during one."""
    if event.status is not None and not all(
        serves(event.status, installed)
        for state in device.models.values()
        if state.stage not in _SWITCHING and (installed := active_release(state)) is not None
    ):
        _retry_later(device, event.draw)


# The end of an attempt.


def _confirm(context: StepContext) -> None:
    name = context.attempt.slot
    new = slot(context.state, name)
    report(
        context,
        OutcomeKind.CONFIRMED,
        accuracy=new.accuracy,
        accuracy_before=_accuracy_before(context),
    )
    context.forgettable(watch=None)
    _make_active(context, name)
    isolation.forget(context)
    request_apply(context.device)  # it is no longer on trial


def _accuracy_before(context: StepContext) -> float | None:
    """The accuracy of the previous release. None if its golden set was a different one."""
    active, new = context.state.active, context.attempt.installed
    if active is None or new is None:
        return None
    before = slot(context.state, active)
    same = before.installed is not None and before.installed.golden.artifact == new.golden.artifact
    return before.accuracy if same else None


def _settle_return(context: StepContext) -> None:
    """The offered previous release is active. It needs no second trial."""
    report(context, OutcomeKind.REVERTED, Reason.RECALLED)
    _make_active(context, context.attempt.slot)


def _make_active(context: StepContext, name: SlotName) -> None:
    """Make the slot the confirmed one, and end the attempt. The pointer moves here only."""
    made, attempt = replace(slot(context.state, name), confirmed=True), context.attempt
    if attempt.action == "install":
        made = replace(made, rollout=attempt.rollout)
    context.set_slot(name, made)
    context.keep(active=name)
    context.move(Signal.SETTLED)
    context.keep(attempt=None)
    context.device.do(MovePointer(slots=pointer(context.device.models)))


def _settle_reverting(context: StepContext) -> None:
    attempt = context.attempt
    if attempt.recalled:
        report(context, OutcomeKind.REVERTED, Reason.RECALLED)
    context.device.forgettable(
        checkin_at=context.now
    )  # the hub waits for the report of each revert
    context.move(Signal.SETTLED)
    context.keep(attempt=None)
    if attempt.action == "install":
        context.set_slot(attempt.slot, Slot())
        context.device.do(RemoveSlot(model=context.model, slot=attempt.slot))


def _settle_stopped(device: DeviceContext, event: ServingProbed) -> None:
    """End the attempts of models that have no release to go back to, once nothing is served."""
    reverting = _in_stage(device, _REVERTING)
    if reverting and event.alive:
        device.do(StopServing())
    elif reverting:
        for name in reverting:
            _settle_reverting(device.model(name))


def _retry_later(device: DeviceContext, draw: float) -> None:
    soft = device.soft
    if soft.switch_at is not None:
        return
    failures = soft.switch_failures
    pause = min(limits.RESTART_MAX_S, limits.RESTART_FIRST_S * 2.0 ** min(failures, 16))
    device.forgettable(
        switch_at=device.now + pause * (0.5 + 0.5 * draw), switch_failures=failures + 1
    )
