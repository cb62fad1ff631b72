"""The units of this device for the arbiter, and the execution of its actions."""

from typing import Final

from edgefleet.agent import before_trial, limits, shadow_phase
from edgefleet.agent.arbiter import Act, Member, Room, Unit, decide
from edgefleet.agent.state import ModelState, other, slot
from edgefleet.agent.step_context import DeviceContext, StepContext
from edgefleet.agent.table import WORKING, Stage

_IDLE: Final = Stage.IDLE
_UNDECIDED: Final = WORKING | {Stage.QUEUED, Stage.STAGED}


def arbitrate(device: DeviceContext) -> None:
    """Give the link, the disk, the prover and the trial to the models that may use them next."""
    names = [name for name, state in device.models.items() if state.stage is not _IDLE]
    if not names or (len(names) == 1 and not _is_undecided(device, names[0])):
        return
    for act, model in decide(_units(device, names), _room(device)):
        _execute(act, device.model(model))


def _is_undecided(device: DeviceContext, name: str) -> bool:
    """Whether the arbiter may have an action for a device whose only attempt is at this model."""
    if device.models[name].stage not in _UNDECIDED:
        return False
    soft = device.soft_models.get(name)
    return soft is None or (soft.work is None and soft.work_at is None)


def _units(device: DeviceContext, names: list[str]) -> list[Unit]:
    """The units in order: those that go back, in trial, then as the hub lists its offers."""
    members: dict[str, list[StepContext]] = {}
    for name in names:
        context = device.model(name)
        members.setdefault(context.attempt.rollout, []).append(context)
    units = [
        Unit(
            rollout=rollout,
            members=tuple(map(_member, contexts)),
            returns=contexts[0].attempt.action == "revert",
        )
        for rollout, contexts in members.items()
    ]
    if len(units) == 1:
        return units
    offered = device.soft.offered
    places = {rollout: place for place, rollout in enumerate(offered)}
    return sorted(
        units,
        key=lambda unit: (
            not unit.goes_back,
            not unit.in_trial,
            places.get(unit.rollout, len(places)),
            min(context.attempt.number for context in members[unit.rollout]),
        ),
    )


def _member(context: StepContext) -> Member:
    stage, soft, installed = context.state.stage, context.soft, context.attempt.installed
    is_queued = stage is Stage.QUEUED
    needs_bytes = needs_mib = 0
    if installed is not None:
        needs_mib = installed.variant.memory_limit_mib
        if is_queued or stage is Stage.FETCHING:
            files = (installed.golden.artifact, installed.variant.artifact)
            needs_bytes = max(0, sum(file.size_bytes for file in files) - soft.slot_bytes)
    return Member(
        model=context.model,
        stage=stage,
        busy=not is_queued and (soft.work is not None or soft.work_at is not None),
        waits=is_queued and soft.work_at is not None,
        needs_shadow=stage is Stage.STAGED and shadow_phase.is_due(context),
        needs_bytes=needs_bytes,
        needs_mib=needs_mib,
    )


def _room(device: DeviceContext) -> Room:
    """The room on this device. The memory for models is not limited: no setting says how much."""
    free = device.soft.free_bytes
    leftovers: tuple[str, ...] = ()
    if free is not None:
        leftovers = tuple([name for name, state in device.models.items() if _has_leftovers(state)])
    return Room(
        free_bytes=None if free is None else free - limits.DISK_MARGIN_BYTES,
        free_mib=None,
        leftovers=leftovers,
    )


def _has_leftovers(state: ModelState) -> bool:
    idle = slot(state, other(state.active))
    is_needed = idle.confirmed or state.stage not in (Stage.IDLE, Stage.QUEUED)
    return not is_needed and (idle.leftover or idle.installed is not None)


def _execute(act: Act, context: StepContext) -> None:
    match act:
        case Act.MANIFEST:
            before_trial.fetch_manifest(context)
        case Act.BYTES | Act.PROVE:
            before_trial.resume(context)
        case Act.SHADOW:
            shadow_phase.begin(context)
        case Act.ASK:
            before_trial.ask(context)
        case Act.PAUSE:
            before_trial.pause(context)
        case Act.WAIT if context.state.stage is Stage.SHADOWING:
            shadow_phase.pause(context)
        case Act.WAIT:
            before_trial.wait(context)
        case Act.NO_ROOM:
            before_trial.wait_for_room(context)
        case Act.DROP:
            before_trial.drop_leftovers(context)
