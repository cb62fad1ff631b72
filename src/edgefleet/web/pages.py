"""The content of each page: from the hub's views to the values that the templates show."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import Phase
from edgefleet.protocol.device_commands import STATES, DeviceFilter
from edgefleet.protocol.operator import AuditEntry, DevicePage, DeviceView, ModelView
from edgefleet.protocol.rollout import Evidence, RolloutView
from edgefleet.protocol.today import today_rows
from edgefleet.protocol.why import WaitCode
from edgefleet.protocol.wire import Wire
from edgefleet.web import charts, limits
from edgefleet.web.buttons import buttons
from edgefleet.web.figures_chart import curves_of
from edgefleet.web.gate_tests import exposure_bar, gate_tests, limit_counts
from edgefleet.web.hub_interface import Reads
from edgefleet.web.outcome_counts import ACCOUNTS, by_wave, counts_of
from edgefleet.web.rollout_charts import area_of, metrics_of, parts_of, reasons_of


@dataclass(frozen=True, slots=True)
class Page:
    """``parts`` are the live fragments; ``twin`` is the page as JSON data.

    ``last_seen`` is the time of the last check-in of each device on the page.
    """

    title: str
    section: str  # of the navigation
    template: str
    parts: tuple[str, ...]
    context: Mapping[str, object]
    twin: Wire
    last_seen: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Reader:
    """The rights of the reader of a page. ``shares_token``: the operator token names no person."""

    may_operate: bool = False
    may_approve: bool = False
    shares_token: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """The parsed address: ``names`` from its path, ``query`` from its query string."""

    names: Mapping[str, str]
    query: Mapping[str, str]
    reader: Reader = Reader()


Build = Callable[[Reads, Asked], Page]


def fleet_page(hub: Reads, asked: Asked) -> Page:
    fleet = hub.fleet()
    rollouts = hub.rollouts().rollouts
    models = hub.models().models
    frozen, quarantined = hub.frozen(), hub.quarantined()
    needs = [rollout for rollout in rollouts if rollout.why.for_a_person]
    open_of = Counter(rollout.model for rollout in rollouts if rollout.id in fleet.rollouts_open)
    context = {
        "reader": asked.reader,
        "fleet": fleet,
        "on_release": [
            (
                model,
                parts_of(model, fleet.on_release),
                sum(fleet.on_release.get(model.name, {}).values()),
                open_of[model.name],
            )
            for model in models
        ],
        "frozen": frozen,
        "quarantined": quarantined,
        "profile_bars": _bars(fleet.by_profile),
        "phase_bars": _bars(fleet.by_phase),
        "needs": needs,
        "open": [
            (rollout, charts.wave_bar(by_wave(rollout), None, compact=True))
            for rollout in rollouts
            if rollout.id in fleet.rollouts_open
        ],
        "rollouts": [rollout for rollout in rollouts if rollout.id not in fleet.rollouts_open][
            : limits.RECENT_ROLLOUTS
        ],
        "rollouts_heading": "Recent rollouts",
        "audit": hub.audit(None, limits.AUDIT_ON_PAGE).entries,
    }
    parts = (
        "fleet_numbers",
        "needs_you",
        "fleet_freeze",
        "open_rollouts",
        "fleet_releases",
        "fleet_profiles",
        "fleet_phases",
        "rollout_rows",
        "audit_lines",
    )
    waits = (quarantined.count, fleet.copied, fleet.disk_faults, frozen.frozen)
    waiting = len(needs) + sum(map(bool, waits))
    title = f"({waiting}) Fleet now" if waiting else "Fleet now"
    return Page(title, "fleet", "fleet.html", parts, context, fleet)


def rollouts_page(hub: Reads, asked: Asked) -> Page:
    model = asked.query.get("model", "").strip()
    listed = hub.rollouts(model)
    context = {
        "rollouts": listed.rollouts,
        "rollouts_heading": f"Newest first, of {model}" if model else "Newest first",
        "models": [one.name for one in hub.models().models],
        "model": model,
    }
    return Page("Rollouts", "rollouts", "rollouts.html", ("rollout_rows",), context, listed)


def rollout_page(hub: Reads, asked: Asked) -> Page:
    rollout = hub.rollout(asked.names["rollout"])
    model = _model(hub, rollout.model)
    waves = by_wave(rollout)
    counts = counts_of(rollout.evidence)
    opened = [wave.population for wave in rollout.waves if wave.population is not None]
    finished = rollout.evidence.failed + rollout.evidence.healthy
    context = {
        "reader": asked.reader,
        "rollout": rollout,
        "waves": waves,
        "wave_bar": charts.wave_bar(waves, opened[-1] if opened else None, compact=False),
        "accounts": [(account, counts[account.key]) for account in ACCOUNTS],
        "failure_rate": rollout.evidence.failed / finished if finished else None,
        "area": area_of(rollout, model.releases, hub.history(rollout.id).points),
        "metrics": metrics_of(rollout),
        "reasons": reasons_of(rollout.evidence.reasons),
        "buttons": buttons(rollout),
        "today": today_rows(rollout.model, rollout.release, rollout),
        "tests": gate_tests(rollout.evidence),
        "limit_counts": limit_counts(rollout.evidence.limits),
        "exposure": exposure_bar(rollout.evidence.in_trial, rollout.allowed or 0),
        "waits_for_approval": any(wait.code is WaitCode.APPROVAL for wait in rollout.why.waits),
        "report": rollout.why,
        "status_text": rollout.text,
        "evidence_rows": [
            (wave, _evidence_of(rollout, index)) for index, wave in enumerate(rollout.waves)
        ],
        "audit": _audit_of(hub, rollout.id),
    }
    parts = (
        "rollout_head",
        "rollout_verbs",
        "rollout_facts",
        "why",
        "rollout_waves",
        "rollout_bounds",
        "rollout_bake",
        "rollout_tests",
        "rollout_share",
        "rollout_cohorts",
        "rollout_reasons",
        "rollout_evidence",
        "audit_lines",
    )
    title = f"{rollout.model} {rollout.release}: {rollout.status.value}"
    return Page(title, "rollouts", "rollout.html", parts, context, rollout)


def devices_page(hub: Reads, asked: Asked) -> Page:
    names = ("selector", "runs", "phase", "state", "search", "profile", "rollout", "standing")
    given = {name: text for name in names if (text := asked.query.get(name, "").strip())}
    only = DeviceFilter(
        selector=given.get("selector", ""),
        runs=given.get("runs", ""),
        phase=given.get("phase", ""),
        states=(given["state"],) if "state" in given else (),
        search=given.get("search", ""),
        profile=given.get("profile", ""),
        rollout=given.get("rollout", ""),
        standing=given.get("standing", ""),
    )
    after = asked.query.get("after") or None
    problem: OperatorError | None = None
    try:
        listed = hub.devices(after, limits.DEVICES_PER_PAGE, only)
    except OperatorError as error:
        wrong = {"selector_invalid", "selector_key_unknown"}
        if error.code not in wrong and error.field not in given:
            raise
        listed, problem = DevicePage(devices=()), error
    context = {
        "listed": listed,
        "selector": only.selector,
        "runs": only.runs,
        "phases": tuple(Phase),
        "states": STATES,
        "given": given,
        "filters": urlencode(given),
        "after": after,
        "problem": problem,
    }
    last_seen = _contacts(listed.devices)
    return Page("Devices", "devices", "devices.html", ("device_rows",), context, listed, last_seen)


def device_page(hub: Reads, asked: Asked) -> Page:
    device = hub.device(asked.names["device"])
    figures = hub.device_figures(device.name)
    context = {
        "device": device,
        "report": hub.why_device(device.name),
        "history": hub.device_history(device.name),
        "figures": [curves_of(one) for one in figures.models],
        "figures_since": figures.since,
    }
    parts = ("device_facts", "why", "device_figures", "device_history")
    last_seen = _contacts((device,))
    return Page(device.name, "devices", "device.html", parts, context, device, last_seen)


def _contacts(devices: Iterable[DeviceView]) -> dict[str, float]:
    return {one.name: one.last_seen for one in devices if one.last_seen is not None}


def models_page(hub: Reads, _: Asked) -> Page:
    listed = hub.models()
    running = {model.name: dict(model.devices) for model in listed.models}
    context = {"models": [(model, parts_of(model, running)) for model in listed.models]}
    return Page("Models", "models", "models.html", ("model_rows",), context, listed)


def model_page(hub: Reads, asked: Asked) -> Page:
    model = hub.model(asked.names["model"])
    context = {"models": [(model, parts_of(model, {model.name: model.devices}))]}
    return Page(model.name, "models", "models.html", ("model_rows",), context, model)


def release_page(hub: Reads, asked: Asked) -> Page:
    release = hub.release(asked.names["model"], asked.names["release"])
    manifest = release.manifest
    report = hub.why_release(manifest.model, manifest.release)
    context = {"release": release, "manifest": manifest, "report": report}
    title = f"{manifest.model} {manifest.release}"
    parts = ("release_facts", "why", "release_variants")
    return Page(title, "models", "release.html", parts, context, release)


def audit_page(hub: Reads, asked: Asked) -> Page:
    before = asked.query.get("before", "")
    if before and not (before.isascii() and before.isdigit()):
        raise OperatorError(
            "bad_request", "`before` must be the number of an audit entry.", field="before"
        )
    listed = hub.audit(int(before) if before else None, limits.AUDIT_PER_PAGE)
    context = {"audit": listed.entries, "next": listed.next}
    return Page("Audit", "audit", "audit.html", ("audit_lines",), context, listed)


PAGES: Final[tuple[tuple[str, Build], ...]] = (
    ("/", fleet_page),
    ("/rollouts", rollouts_page),
    ("/rollouts/{rollout}", rollout_page),
    ("/devices", devices_page),
    ("/devices/{device}", device_page),
    ("/models", models_page),
    ("/models/{model}", model_page),
    ("/models/{model}/{release}", release_page),
    ("/audit", audit_page),
)


def _bars(counts: Mapping[str, int]) -> list[tuple[str, int, str]]:
    """Names with their counts, largest first, and a bar relative to the largest count."""
    most = max(counts.values(), default=0)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(name, number, charts.plain_bar(number, most, name)) for name, number in ranked]


def _model(hub: Reads, name: str) -> ModelView:
    """The model of a rollout. A model that the registry does not list has no releases."""
    listed = {model.name: model for model in hub.models().models}
    return listed.get(name) or ModelView(name=name, releases=(), devices={})


def _evidence_of(rollout: RolloutView, index: int) -> Evidence | None:
    """The evidence of the wave's verdict. For the last opened wave: the evidence now.

    None if the wave has not opened.
    """
    wave = rollout.waves[index]
    if wave.opened_at is None:
        return None
    last = all(later.opened_at is None for later in rollout.waves[index + 1 :])
    return rollout.evidence if last or wave.judgement is None else wave.judgement.evidence


def _audit_of(hub: Reads, rollout_id: str) -> list[AuditEntry]:
    """The newest entries about one rollout, among the newest ``AUDIT_SCANNED`` entries."""
    found: list[AuditEntry] = []
    before: int | None = None
    for _ in range(limits.AUDIT_SCANNED // limits.AUDIT_PER_PAGE):
        page = hub.audit(before, limits.AUDIT_PER_PAGE)
        found += [e for e in page.entries if e.about in {rollout_id, f"rollout/{rollout_id}"}]
        if page.next is None or len(found) >= limits.AUDIT_ON_PAGE:
            break
        before = page.next
    return found[: limits.AUDIT_ON_PAGE]
