"""Stores the state before the effects of a step, and says whether that succeeded.

While the disk cannot be written the loop goes on: the device serves, rolls back and checks in.
Actions that must not precede the stored state wait, see ``outcomes_to_send`` and ``move_pointer``.
"""

from collections.abc import Callable, Mapping
from typing import Final

from edgefleet.agent import limits
from edgefleet.agent.slots import Slots
from edgefleet.agent.state import SlotName
from edgefleet.base.errors import DeviceError
from edgefleet.protocol.device import Outcome, OutcomeKind

_UNSTORED: Final = OutcomeKind.DEFERRED  # says how it is now, and claims nothing for later


class Journal:
    """The stored state of one device.

    ``fault`` is a code of base.errors, "" if it is stored. ``detail`` is the sentence of the error:
    the path, and what the operating system says.
    """

    def __init__(self, slots: Slots, monotonic: Callable[[], float]) -> None:
        self.fault = self.detail = ""
        self._slots = slots
        self._monotonic = monotonic
        self._retry_at = monotonic() + limits.DISK_CHECK_S
        self._pointer: Mapping[str, SlotName] | None = None  # waits for the disk

    def check(self) -> str:
        """The fault of the disk, from writing a small file."""
        return self._try(self._slots.check_disk)

    def store(self, data: bytes) -> str:
        """Store the state. Returns the fault.

        After a fault at most one attempt is made in SAVE_RETRY_S. A disk that has nothing to store
        is checked each DISK_CHECK_S.
        """
        is_due = self._monotonic() >= self._retry_at
        if self.fault and not is_due:
            return self.fault
        self._try(lambda: self._slots.save(data))
        if is_due and not self.fault:
            self.check()
        if not self.fault and self._pointer is not None:
            self.move_pointer(self._pointer)
        return self.fault

    def wait_s(self) -> float:
        """Seconds until ``store`` should be called again."""
        return max(0.0, self._retry_at - self._monotonic())

    def outcomes_to_send(self, outcomes: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
        """Those that may be reported now: an outcome is stored before the hub hears of it."""
        return tuple(one for one in outcomes if not self.fault or one.kind is _UNSTORED)

    def move_pointer(self, slots: Mapping[str, SlotName]) -> None:
        """Write the pointer file, now or once the state is stored."""
        self._pointer = slots
        if not self.fault and not self._try(lambda: self._slots.move_pointer(slots)):
            self._pointer = None

    def _try(self, write: Callable[[], object]) -> str:
        pause_s = limits.DISK_CHECK_S
        try:
            write()
        except DeviceError as error:
            self.fault, self.detail = error.code, error.message
            pause_s = limits.SAVE_RETRY_S
        else:
            self.fault = self.detail = ""
        self._retry_at = self._monotonic() + pause_s
        return self.fault
