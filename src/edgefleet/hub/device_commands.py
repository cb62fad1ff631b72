"""Changes of single devices by an operator: each is durable before it takes effect."""

from collections.abc import Callable

from edgefleet.base.clock import Clock
from edgefleet.base.errors import OperatorError
from edgefleet.base.ids import check_name
from edgefleet.hub.actors import line_by
from edgefleet.hub.devices import Devices
from edgefleet.hub.label_owners import check_labels
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.hub.truth import WaitingTruth
from edgefleet.protocol.device_commands import (
    LabelDevice,
    RemovedDevice,
    RemoveDevice,
    RenameDevice,
)
from edgefleet.protocol.operator import DeviceView
from edgefleet.rollout.engine import Engine
from edgefleet.rollout.lifecycle.step import AuditLine
from edgefleet.security.principals import Principal

View = Callable[[str], DeviceView]


class DeviceCommands:
    """``view`` returns a device by its name, as the operator sees it."""

    def __init__(
        self,
        store: SqliteStore,
        engine: Engine,
        devices: Devices,
        truth: WaitingTruth,
        clock: Clock,
        *,
        view: View,
    ) -> None:
        self._store = store
        self._engine = engine
        self._devices = devices
        self._truth = truth
        self._clock = clock
        self._view = view

    async def label(self, row: int, request: LabelDevice, by: Principal) -> DeviceView:
        """Set and remove labels of the operator. Raises OperatorError."""
        check_labels(request.set)
        if both := sorted(set(request.set) & set(request.unset)):
            text = f"The label {both[0]} is set and removed at once."
            raise OperatorError("bad_request", text, field="unset")
        by_device = self._devices.label_owners.by_device(row)

        def change(before: dict[str, str]) -> dict[str, str]:
            for key in request.unset:
                if key not in before:
                    raise OperatorError(
                        "not_found",
                        f"The operator has set no label {key} on this device.",
                        field="unset",
                    )
            after = {key: value for key, value in before.items() if key not in request.unset}
            after |= request.set
            check_labels({**by_device, **after})
            return after

        changes = [f"{key}={value}" for key, value in request.set.items()]
        changes += [f"{key}-" for key in request.unset]
        detail = f"{' '.join(changes)}. {request.note}".rstrip(". ")
        line = self._line("label", row, by.named(request.person), detail)
        await self._store.label_device(
            row,
            change,
            line,
            self._clock.now(),
            lambda labels: self._devices.set_labels(row, labels),
        )
        return self._view(self._engine.fleet.name(row))

    async def rename(self, row: int, request: RenameDevice, by: Principal) -> DeviceView:
        """Give a device another name. Raises OperatorError ``name_invalid`` or ``name_taken``."""
        new = check_name(request.name, field="name")
        line = self._line(
            "rename", row, by.named(request.person), f"to {new}. {request.note}".rstrip(". ")
        )
        await self._store.rename_device(
            row, new, line, self._clock.now(), lambda _none: self._devices.rename(row, new)
        )
        return self._view(new)

    async def remove(self, row: int, request: RemoveDevice, by: Principal) -> RemovedDevice:
        """Remove a device. Its row, its reports and its audit entries stay in the store."""
        name, removed = self._engine.fleet.name(row), RemovedDevice(name="")
        at = self._clock.now()
        line = self._line("remove", row, by.named(request.person), request.note)

        def committed(_none: None) -> None:
            nonlocal removed
            if self._engine.fleet.is_removed(row):
                return
            self._devices.prepare_removal(row)
            self._truth.forget(row)
            left = self._engine.remove_device(row, at)
            self._devices.forget_credential(row)
            removed = RemovedDevice(
                name=name, reports={one: standing.name.lower() for one, standing in left.items()}
            )

        await self._store.remove_device(row, line, at, committed)
        return removed

    def _line(self, action: str, row: int, by: Principal, detail: str) -> AuditLine:
        return line_by(by, action, f"device/{self._engine.fleet.name(row)}", detail)
