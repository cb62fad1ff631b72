"""The page's view of a hub, without a hub: views set by a test, and a simulated rollout."""

import msgspec

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device_commands import DeviceFilter
from edgefleet.protocol.device_figures import DeviceFigures, FiguresPoint, ModelPoints
from edgefleet.protocol.operator import (
    AuditEntry,
    AuditPage,
    DeviceHistory,
    DeviceModel,
    DevicePage,
    DeviceView,
    FleetView,
    Models,
    ModelView,
    QuarantinedDevice,
    QuarantinedDevices,
    ReleaseView,
    RolloutHistory,
    Rollouts,
    Unquarantine,
)
from edgefleet.protocol.rollout import (
    ApproveRequest,
    Command,
    Freeze,
    RolloutView,
    Status,
    Verb,
)
from edgefleet.protocol.why import Wait, WaitCode, WaitReport
from edgefleet.security.principals import Principal
from support.fake_logins import TOKEN, FakeLogins
from support.scenes import ATTEMPTS, NOW, POPULATION, history_of, release_view, report, rollout_in

__all__ = ["TOKEN", "FakeReads", "release_view", "rollout_in"]


def figures_until(now: float) -> tuple[FiguresPoint, ...]:
    """Five reports, one without a request."""
    return tuple(
        FiguresPoint(
            at=now - 10 * (5 - number), release="2", span_s=10.0 if number else None,
            requests=(count := 0 if number == 3 else 20 * number + 20), errors=number // 4, refused=0,
            latency_us_p50=100 + number if count else None,
            latency_us_p95=900 + 100 * number if count else None,
            confidence=0.9 - number / 50 if count else None, cpu_us=55.0, memory_mib=12,
        )
        for number in range(5)
    )  # fmt: skip


class FakeReads:
    """All reads of the page. Tests set ``rollout_views`` and ``device_views``, or call ``play``."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now
        self.logins = FakeLogins()
        self.rollout_views: dict[str, RolloutView] = {}
        self.device_views = [self._device(number) for number in range(120)]
        self.entries: list[AuditEntry] = []
        self.commands: list[tuple[str, Verb, Command, Principal]] = []
        self.refusal: OperatorError | None = None
        self.approved: list[tuple[str, str]] = []
        self.freeze_said = Freeze(frozen=False)
        self.quarantined_devices: list[QuarantinedDevice] = []
        self.attempts = list(ATTEMPTS)  # of every device
        self.figures = [ModelPoints(model="digits", points=figures_until(now))]  # of every device
        self.reports: dict[str, WaitReport] = {}  # of devices, instead of the same for all
        self.more_models: tuple[ModelView, ...] = ()
        for status in (Status.COMPLETED, Status.REVERTED, Status.REFUSED):
            self.put(rollout_in(status, now=now))

    def put(self, rollout: RolloutView) -> None:
        self.rollout_views[rollout.id] = rollout
        self.log("gate", rollout.status.value, f"rollout/{rollout.id}", rollout.text)

    def log(self, actor: str, action: str, about: str, detail: str) -> None:
        number = len(self.entries) + 1
        entry = AuditEntry(
            id=number, at=self.now, actor=actor, action=action, about=about, detail=detail
        )
        self.entries.insert(0, entry)

    def play(self, rollout_id: str, healthy: int) -> None:
        """Set how many devices of the open wave have confirmed."""
        rollout = self.rollout_views[rollout_id]
        seen = msgspec.structs.replace(
            rollout.evidence,
            healthy=healthy,
            exposed=healthy,
            in_trial=0,
            offered=101 - healthy - 7,
        )
        text = f"{healthy} devices are healthy."
        why = msgspec.structs.replace(rollout.why, line=text)
        self.rollout_views[rollout_id] = msgspec.structs.replace(
            rollout, evidence=seen, exposed=healthy, text=text, why=why
        )

    def _device(self, number: int) -> DeviceView:
        site = ("lyon", "oslo", "turin")[number % 3]
        online = number % 11 != 5
        taken = number % 9 == 0
        return DeviceView(
            name=f"{site}-{number:04}", profile=("raspberry_pi", "jetson_nano", "coral_tpu")[number % 3],
            labels={"site": site, "tier": "gold" if number % 2 else "silver"}, agent_version="0.1.0",
            enrolled_at=self.now - 90_000, last_seen=self.now - (7 if online else 4000), online=online,
            models=(
                DeviceModel(
                    model="digits", release="3" if taken else "2",
                    phase="trial" if taken and online else "idle",
                    desired="3" if number % 4 == 0 else "2", rollout="ro-running" if taken else None,
                ),
            ),
            line="It tries release 3 since 12 s." if taken else "Its position lies beyond the open wave's cut.",
        )  # fmt: skip

    def fleet(self) -> FleetView:
        open_ = {Status.RUNNING, Status.PAUSED, Status.HALTED, Status.REVERTING, Status.PLANNED}
        return FleetView(
            at=self.now, total=POPULATION, online=967,
            by_profile={"raspberry_pi": 402, "jetson_nano": 301, "coral_tpu": 200, "generic_x86": 100},
            on_release={"digits": {"1": 31, "2": 850, "3": 86}},
            by_phase={"idle": 930, "fetching": 9, "proving": 6, "trial": 14, "reverting": 8},
            rollouts_open=tuple(key for key, view in self.rollout_views.items() if view.status in open_),
        )  # fmt: skip

    def models(self) -> Models:
        return Models(
            models=(
                ModelView(
                    name="digits", releases=("3", "2", "1"), devices={"1": 31, "2": 850, "3": 86}
                ),
                *self.more_models,
            )
        )

    def model(self, name: str) -> ModelView:
        if name != "digits":
            raise OperatorError("not_found", f"There is no model {name!r}.")
        return self.models().models[0]

    def release(self, model: str, release: str) -> ReleaseView:
        self.model(model)
        if release not in {"1", "2", "3"}:
            raise OperatorError("not_found", f"There is no release {release!r}.")
        return release_view(release, self.now)

    def rollouts(self, model: str = "") -> Rollouts:
        views = reversed(self.rollout_views.values())
        return Rollouts(rollouts=tuple(one for one in views if model in ("", one.model)))

    def rollout(self, rollout_id: str) -> RolloutView:
        if rollout_id not in self.rollout_views:
            raise OperatorError("not_found", f"There is no rollout {rollout_id!r}.")
        return self.rollout_views[rollout_id]

    def history(self, rollout_id: str) -> RolloutHistory:
        return history_of(self.rollout(rollout_id), self.now)

    def devices(
        self,
        after: str | None,
        limit: int,
        only: DeviceFilter = DeviceFilter(),  # noqa: B008 - frozen
    ) -> DevicePage:
        selector, runs = only.selector, only.runs
        model, _, release = runs.partition(":")
        if runs and model not in {one.name for one in self.models().models}:
            raise OperatorError("not_found", f"There is no model {model}.", field="runs")
        if selector and "=" not in selector:
            raise OperatorError(
                "selector_key_unknown", f"No device carries {selector!r}.", field="selector"
            )
        key, _, value = selector.partition("=")
        found = [
            view for view in self.device_views if not selector or view.labels.get(key) == value
        ]
        if runs:
            found = [
                view
                for view in found
                if any(
                    one.model == model and one.release and release in ("", one.release)
                    for one in view.models
                )
            ]
        names = [view.name for view in found]
        first = names.index(after) + 1 if after else 0
        page = found[first : first + limit]
        return DevicePage(
            devices=tuple(page), next=page[-1].name if first + limit < len(found) else None
        )

    def device(self, name: str) -> DeviceView:
        for view in self.device_views:
            if view.name == name:
                return view
        raise OperatorError("not_found", f"There is no device {name!r}.")

    def device_history(self, name: str) -> DeviceHistory:
        self.device(name)
        return DeviceHistory(device=name, attempts=tuple(self.attempts))

    def device_figures(self, name: str) -> DeviceFigures:
        self.device(name)
        return DeviceFigures(device=name, since=self.now - 600, models=tuple(self.figures))

    def why_device(self, name: str) -> WaitReport:
        wait = Wait(
            code=WaitCode.NEXT_WAVE,
            text="Its position lies beyond the open wave's cut.",
            since=self.now - 90,
        )
        made = report(f"device/{name}", self.device(name).line, wait)
        return self.reports.get(name, made)

    def why_rollout(self, rollout_id: str) -> WaitReport:
        return self.rollout(rollout_id).why

    def why_release(self, model: str, release: str) -> WaitReport:
        wait = Wait(
            code=WaitCode.SOAK, text="Its rollout soaks.", since=self.now - 22, until=self.now + 38
        )
        return report(f"release/{model}/{release}", "It is being rolled out.", wait)

    def audit(self, before: int | None, limit: int) -> AuditPage:
        older = [entry for entry in self.entries if before is None or entry.id < before]
        page = tuple(older[:limit])
        return AuditPage(entries=page, next=page[-1].id if len(older) > limit else None)

    def frozen(self) -> Freeze:
        return self.freeze_said

    def quarantined(self) -> QuarantinedDevices:
        return QuarantinedDevices(
            count=len(self.quarantined_devices), devices=tuple(self.quarantined_devices)
        )

    async def approve(self, rollout_id: str, request: ApproveRequest, by: Principal) -> RolloutView:
        if self.refusal is not None:
            raise self.refusal
        self.approved.append((rollout_id, by.named(request.person).name))
        return self.rollout(rollout_id)

    async def freeze(self, said: Freeze, _by: Principal) -> Freeze:
        self.freeze_said = said
        return said

    async def unquarantine(self, name: str, _request: Unquarantine, _by: Principal) -> DeviceView:
        self.quarantined_devices = [
            device for device in self.quarantined_devices if device.name != name
        ]
        return self.device(name)

    async def command(
        self, rollout_id: str, verb: Verb, command: Command, by: Principal
    ) -> RolloutView:
        if self.refusal is not None:
            raise self.refusal
        self.rollout(rollout_id)
        self.commands.append((rollout_id, verb, command, by))
        after = {
            Verb.START: Status.RUNNING, Verb.PAUSE: Status.PAUSED, Verb.RESUME: Status.RUNNING,
            Verb.ADVANCE: Status.RUNNING, Verb.HALT: Status.HALTED, Verb.REVERT: Status.REVERTING,
        }[verb]  # fmt: skip
        self.put(rollout_in(after, now=self.now, rollout_id=rollout_id))
        self.log(by.name, verb.value, f"rollout/{rollout_id}", command.note)
        return self.rollout_views[rollout_id]
