"""The status of the agent, for ``edgefleet agent status`` and ``health``, the log and systemd."""

from collections.abc import Mapping
from typing import Final

from msgspec import structs

from edgefleet.agent import serving_health
from edgefleet.agent.state import AgentState, ModelState, active_release
from edgefleet.agent.table import Stage
from edgefleet.protocol.serving_health import ServingHealth, ServingView, view_of
from edgefleet.protocol.wire import Wire

FAILS_WITHIN_S: Final = 300.0
"""An agent is unhealthy for so long after the last of several ends of its serving process."""
FAILS_FROM: Final = 3  # such ends

WAITS: Final[Mapping[Stage, str]] = {
    Stage.QUEUED: "waits for the link or for room on the disk",
    Stage.MANIFEST: "downloads the manifest",
    Stage.FETCHING: "downloads",
    Stage.PROVING: "proves it on the golden set",
    Stage.STAGED: "is proved, and waits until no other model of the device is in trial",
    Stage.SHADOWING: "answers a share of the live requests, for no caller",
    Stage.ANNOUNCING: "is proved, and waits for the hub's admission",
    Stage.ACTIVATING: "is being loaded for its trial",
    Stage.WATCHING: "is in trial",
    Stage.REVERTING: "is rolled back",
}
"""The words for a release in each stage of its attempt."""


class ModelLine(Wire, frozen=True, kw_only=True):
    """One model. ``release`` is the confirmed one, ``next`` that of the attempt in progress."""

    model: str
    release: str | None
    is_served: bool
    next: str | None = None
    doing: str = ""  # the activity of ``next``


class AgentStatus(Wire, frozen=True, kw_only=True):
    """``line`` is a summary. ``problems`` are empty if agent and serving are healthy.

    ``hub_lost_since`` is None while the hub answers. ``device`` is empty before the enrolment.
    """

    line: str
    problems: tuple[str, ...] = ()
    at: float
    version: str
    device: str = ""
    hub: str = ""
    hub_lost_since: float | None = None
    hub_lost_reason: str = ""
    hub_reached: bool = True  # False: no check-in was answered since the agent started
    models: tuple[ModelLine, ...] = ()
    serving: ServingView | None = None  # None: nothing is wrong


def status_of(
    state: AgentState, now: float, *, version: str, device: str, hub: str, progress: str = ""
) -> AgentStatus:
    """The status at ``now``. ``progress`` is that of the download, if there is one."""
    health = serving_health.to_report(state.models, state.soft.health, now)
    down, loss = state.soft.health.down, state.soft.hub_loss
    models = tuple(_line(name, mine, down, progress) for name, mine in sorted(state.models.items()))
    view = None if health is None else view_of(health, now)
    if view is not None and state.soft.health.down_cause:
        view = structs.replace(view, text=f"{view.text} {state.soft.health.down_cause}")
    return AgentStatus(
        line=_summary(models, view),
        problems=() if health is None or view is None else _problems(health, view),
        at=now,
        version=version,
        device=device,
        hub=hub,
        hub_lost_since=None if loss is None else loss.at,
        hub_lost_reason="" if loss is None else loss.text,
        hub_reached=state.soft.hub_reached,
        models=models,
        serving=view,
    )


def _line(model: str, mine: ModelState, down: tuple[str, ...], progress: str) -> ModelLine:
    installed, attempt = active_release(mine), mine.attempt
    doing = "" if attempt is None else WAITS.get(mine.stage, "")
    if mine.stage is Stage.FETCHING and progress:
        doing = f"{doing}, {progress}"
    return ModelLine(
        model=model,
        release=None if installed is None else installed.release,
        is_served=installed is not None and model not in down,
        next=None if attempt is None else attempt.release,
        doing=doing,
    )


def _summary(models: tuple[ModelLine, ...], view: ServingView | None) -> str:
    if view is not None and view.down_since is not None:
        return view.text
    parts: list[str] = []
    for one in models:
        if one.is_served:
            parts.append(f"serves {one.model} {one.release}")
        if one.next is not None:
            parts.append(f"{one.model} {one.next} {one.doing}")
    text = "; ".join(parts) or "no release is installed"
    return f"{text[0].upper()}{text[1:]}."


def _problems(health: ServingHealth, view: ServingView) -> tuple[str, ...]:
    """Serving is down, or its process ended several times, the last time just now."""
    count = sum(one.count for one in health.ends)
    is_recent = any(one.last_s < FAILS_WITHIN_S for one in health.ends)
    is_failing = health.down_s is not None or (count >= FAILS_FROM and is_recent)
    return (view.text,) if is_failing else ()
