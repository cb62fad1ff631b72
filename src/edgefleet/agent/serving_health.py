"""The health of serving: which models are not served, and how often a serving process ended.

It is an observation: of the status of the serving process, and of the ends that the agent did not
order. The stages of an attempt say nothing about it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from edgefleet.agent import isolation, limits
from edgefleet.agent.state import Health, ModelState, NotedEnd, active_release, running
from edgefleet.agent.step_context import DeviceContext
from edgefleet.agent.typed_replace import replace
from edgefleet.protocol.serving import ServingStatus, model_status
from edgefleet.protocol.serving_health import CAUSES, ENDS_WITHIN_S, ServingEnds, ServingHealth

NOTHING: Final = Health()


def note_ends(device: DeviceContext, causes: Sequence[str], ran: Sequence[str]) -> None:
    """Note ends of the shared process, in which the models ``ran``.

    If none ran, an end may be the fault of each confirmed release in the process.
    """
    if not causes:
        return
    models = ran or [name for name in device.models if not isolation.is_isolated(device, name)]
    served = tuple(
        (name, installed.release)
        for name in models
        if name in device.models and (installed := active_release(device.models[name])) is not None
    )
    _add(device, [NotedEnd(at=device.now, cause=cause, served=served) for cause in causes])


def observe(device: DeviceContext, status: ServingStatus | None, *, cause: str = "") -> None:
    """Note the models that are not served. No ``status``: the process does not run.

    ``cause`` is why it could not be started. It is kept until every model is served.
    """
    _note_worker_ends(device, status)
    health = device.soft.health
    down = tuple(
        name
        for name, state in sorted(device.models.items())
        if active_release(state) is not None and not _is_ready(status, name)
    )
    since = (health.down_since or device.now) if down else None
    text = (cause or health.down_cause) if down else ""
    if (down, since, text) != (health.down, health.down_since, health.down_cause):
        found = replace(device.soft.health, down=down, down_since=since, down_cause=text)
        device.forgettable(health=found)


def to_report(models: Mapping[str, ModelState], health: Health, now: float) -> ServingHealth | None:
    """The report of a check-in at ``now``. None if nothing is wrong."""
    if health == NOTHING:
        return None
    recent = [end for end in health.ends if now - end.at < ENDS_WITHIN_S]
    if not recent and health.down_since is None:
        return None
    by_cause: dict[str, ServingEnds] = {}
    by_model: dict[str, int] = {}
    for end in recent:
        before = by_cause.pop(end.cause, None)  # so that the latest cause is the last
        count = 1 if before is None else before.count + 1
        by_cause[end.cause] = ServingEnds(
            cause=end.cause, count=count, last_s=max(0.0, now - end.at)
        )
        for model, release in end.served:
            if model in models and running(models[model]) == release:
                by_model[model] = by_model.get(model, 0) + 1
    since = health.down_since
    return ServingHealth(
        down_s=None if since is None else max(0.0, now - since),
        down=health.down,
        ends=tuple(reversed(by_cause.values()))[:CAUSES],
        by_model=by_model,
    )


def _note_worker_ends(device: DeviceContext, status: ServingStatus | None) -> None:
    """Note the ends of workers of confirmed releases, each at the first status that has it."""
    if status is None:
        return
    ends: list[NotedEnd] = []
    for own in status.models:
        before = model_status(device.soft.serving, own.model)
        known = "" if before is None else before.confirmed_ended
        if own.confirmed_ended and not known and own.model in device.models:
            installed = active_release(device.models[own.model])
            served = () if installed is None else ((own.model, installed.release),)
            ends.append(
                NotedEnd(at=device.now, cause=own.confirmed_ended, served=served, worker=own.model)
            )
    if ends:
        _add(device, ends)


def _add(device: DeviceContext, ends: Sequence[NotedEnd]) -> None:
    before = device.soft.health
    kept = [end for end in before.ends if device.now - end.at < ENDS_WITHIN_S]
    device.forgettable(health=replace(before, ends=(*kept, *ends)[-limits.ENDS_NOTED :]))


def _is_ready(status: ServingStatus | None, model: str) -> bool:
    own = model_status(status, model)
    return own is not None and own.ready
