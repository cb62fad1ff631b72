"""Copied devices at the hub: they survive a restart, until an operator clears them."""

from collections.abc import Callable

from edgefleet.base.clock import Clock
from edgefleet.base.errors import OperatorError
from edgefleet.hub.actors import line_by
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.protocol.device_commands import ClearCopy
from edgefleet.protocol.operator import DeviceView
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.security.principals import Principal

View = Callable[[str], DeviceView]


class CopiedDevices:
    """``view`` returns a device by its name, as the operator sees it."""

    def __init__(self, store: SqliteStore, fleet: Fleet, clock: Clock, *, view: View) -> None:
        self._store = store
        self._fleet = fleet
        self._clock = clock
        self._view = view

    def load(self) -> None:
        """Restore from the store, after the devices."""
        stored = self._store.reader.load_copied()
        removed = self._fleet.is_removed
        self._fleet.copies.load({row: runs for row, runs in stored if not removed(row)})

    @property
    def count(self) -> int:
        """The number of copied devices. Each is one device in every count."""
        return len(self._fleet.copies.rows)

    async def flush(self) -> None:
        """Store the copied devices that changed."""
        copies = self._fleet.copies
        rows = tuple(copies.changed)
        if not rows:
            return
        copies.changed.clear()
        try:
            await self._store.save_copied({row: dict(copies.runs(row)) for row in rows})
        except BaseException:
            copies.changed.update(rows)
            raise

    async def clear(self, row: int, request: ClearCopy, by: Principal) -> DeviceView:
        """The operator stopped the copies. Raises OperatorError ``device_not_copied``."""
        copies, name = self._fleet.copies, self._fleet.name(row)
        if not copies.is_copied(row):
            raise OperatorError("device_not_copied", f"{name} is not copied.")
        line = line_by(by.named(request.person), "clear_copy", f"device/{name}", request.note)
        await self._store.save_copy_cleared(
            row, line, self._clock.now(), lambda _none: copies.clear(row)
        )
        return self._view(name)
