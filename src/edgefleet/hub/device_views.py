"""The view of a device for operators: its state, its models, and the reasons why it waits."""

from collections.abc import Mapping

from edgefleet.hub.devices import Devices
from edgefleet.hub.limits import QUARANTINED_SHOWN
from edgefleet.hub.registry import Registry
from edgefleet.hub.truth import WaitingTruth
from edgefleet.protocol.device import ModelReport, Phase, isolation_text, run_name
from edgefleet.protocol.disk_fault import disk_fault_text
from edgefleet.protocol.operator import (
    AgentRun,
    DeviceModel,
    DeviceView,
    QuarantinedDevice,
    QuarantinedDevices,
)
from edgefleet.rollout.engine import Engine
from edgefleet.rollout.fleet.device_models import furthest
from edgefleet.rollout.fleet.eligibility import variants_of


class DeviceViews:
    """Puts together what the engine, the devices' facts and the waiting labels say of a device."""

    def __init__(
        self,
        engine: Engine,
        devices: Devices,
        registry: Registry,
        truth: WaitingTruth,
        *,
        started_at: float,
    ) -> None:
        """``started_at`` is when the hub started, in seconds since 1970."""
        self._engine = engine
        self._devices = devices
        self._registry = registry
        self._truth = truth
        self._started_at = started_at

    def view(self, row: int, now: float) -> DeviceView:
        """Everything that one device's page shows."""
        fleet = self._engine.fleet
        why = self._engine.why_device(row, now)
        return DeviceView(
            name=fleet.name(row),
            profile=fleet.profile(row),
            labels=dict(fleet.labels(row)),
            agent_version=self._devices.facts(row).agent_version,
            enrolled_at=self._devices.enrolled_at(row),
            last_seen=(last_seen := fleet.last_seen(row)),
            before_start=last_seen is not None and last_seen < self._started_at,
            online=fleet.online(row, now),
            models=self._models(row, {wait.model: wait.text for wait in why.waits}),
            unknown_set=not fleet.set_of(row).is_known,
            labels_waiting=self._truth.waiting(row),
            serving=fleet.serving.view(row),
            quarantined=self._engine.quarantined_models(row),
            copies=tuple(
                AgentRun(run=run_name(run), last_seen=at) for run, at in fleet.copies.runs(row)
            ),
            own_labels=self._devices.label_owners.by_device(row),
            set_labels=self._devices.label_owners.by_operator(row),
            disk_fault=(fault := fleet.disk_faults.get(row)),
            disk_fault_text=disk_fault_text(fault),
            line=why.line,
        )

    def quarantined(self) -> QuarantinedDevices:
        """Devices on which two different releases of a model failed.

        The count is complete; at most ``QUARANTINED_SHOWN`` devices are listed.
        """
        fleet, engine = self._engine.fleet, self._engine
        found: list[QuarantinedDevice] = []
        count = 0
        for model in self._registry.models():
            rows = engine.quarantined_rows(model)
            count += len(rows)
            found += [
                QuarantinedDevice(
                    name=fleet.name(row), model=model, rollbacks=engine.rollbacks(model, row)
                )
                for row in rows[: QUARANTINED_SHOWN - len(found)].tolist()
            ]
        return QuarantinedDevices(count=count, devices=tuple(found))

    def _models(self, row: int, lines: Mapping[str | None, str]) -> tuple[DeviceModel, ...]:
        """The models that the device has or should have. ``lines`` has the reason by model."""
        engine = self._engine
        reported = {report.model: report for report in engine.fleet.models.reports(row)}
        named = sorted({*reported, *engine.desired_models(row)} - {""})
        phase = furthest(engine.fleet.models.activity(row)) if "" in reported else Phase.IDLE
        none = ModelReport(model="", phase=phase)  # an agent with one model may not name it
        isolated = {one.model: one.reason for one in self._devices.facts(row).isolated}
        return tuple(
            DeviceModel(
                model=model,
                release=(report := reported.get(model, none)).release,
                phase=report.phase.value,
                desired=engine.desired(row, model),
                rollout=engine.rollout_of(row, model),
                memory_limit_mib=self._memory_limit(row, model, report.release),
                line=lines.get(model, ""),
                isolation=(reason := isolated.get(model, "")),
                isolation_text=isolation_text(reason),
            )
            for model in named
        )

    def _memory_limit(self, row: int, model: str, release: str | None) -> int | None:
        """The memory that the release may use on the device, in MiB. None if it is unknown."""
        if release is None or release not in self._registry.models().get(model, ()):
            return None
        variants = variants_of(self._registry.release(model, release).manifest)
        variant = variants.get(self._engine.fleet.profile(row))
        return None if variant is None else variant.memory_limit_mib
