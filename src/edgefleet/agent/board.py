"""The sensors of the board, from sysfs: temperature, throttling and battery.

A board without them, or one that does not let the agent read them, has None.
"""

import contextlib
from typing import Final

from edgefleet.agent.cost_figures import Board
from edgefleet.base.errors import DeviceError
from edgefleet.base.storage import Storage

_ZONES: Final = "class/thermal"
_PLAUSIBLE_C: Final = (-60.0, 200.0)  # a zone without a sensor reports others
_COOLS_CPU: Final = ("processor", "cpufreq", "cpu-")  # types of devices that slow the processor
_CPUS: Final = "devices/system/cpu"
_COUNTERS: Final = ("core_throttle_count", "package_throttle_count")
_FIRMWARE: Final = "devices/platform/soc/soc:firmware/get_throttled"  # Raspberry Pi
_CAPPED_NOW: Final = 0b1110  # of its bits: frequency capped, throttled, soft temperature limit
_SUPPLIES: Final = "class/power_supply"
_CHARGES: Final = ("energy", "charge")  # finer than the capacity, which is in whole percent


class BoardSensors:
    """Reads the sensors under ``root``, the root of sysfs. None: this machine has no sysfs."""

    def __init__(self, root: Storage | None) -> None:
        self._root = root
        self._throttles: int | None = None

    def read(self) -> Board | None:
        """The sensors now. None if there are none."""
        board = Board(
            temperature_c=self._temperature(),
            is_throttled=self._is_throttled(),
            battery_percent=self._battery(),
        )
        return None if board == Board() else board

    def _temperature(self) -> float | None:
        """The temperature of the hottest zone, in degrees Celsius."""
        found: list[float] = []
        for name in self._list(_ZONES):
            value = self._number(f"{_ZONES}/{name}/temp") if name.startswith("thermal") else None
            if value is not None and _PLAUSIBLE_C[0] < value / 1000 < _PLAUSIBLE_C[1]:
                found.append(value / 1000)
        return max(found, default=None)

    def _is_throttled(self) -> bool | None:
        """True if a cooling device slows the processor, or a counter grew since the last call."""
        signs: list[bool] = []
        for name in self._list(_ZONES):
            if name.startswith("cooling_device"):
                kind = self._text(f"{_ZONES}/{name}/type").lower()
                state = self._number(f"{_ZONES}/{name}/cur_state")
                if state is not None and any(one in kind for one in _COOLS_CPU):
                    signs.append(state > 0)
        with contextlib.suppress(ValueError):
            signs.append(bool(int(self._text(_FIRMWARE), 16) & _CAPPED_NOW))
        counts = [
            value
            for name in self._list(_CPUS)
            if name.startswith("cpu") and name[3:].isdecimal()
            for counter in _COUNTERS
            if (value := self._number(f"{_CPUS}/{name}/thermal_throttle/{counter}")) is not None
        ]
        if counts:
            before, self._throttles = self._throttles, int(sum(counts))
            signs.append(before is not None and self._throttles > before)
        return any(signs) if signs else None

    def _battery(self) -> float | None:
        """The charge in percent of the first battery that is discharging."""
        for name in self._list(_SUPPLIES):
            at = f"{_SUPPLIES}/{name}"
            if self._text(f"{at}/type") != "Battery" or self._text(f"{at}/scope") == "Device":
                continue  # a "Device" is a mouse or the like
            if self._text(f"{at}/status") != "Discharging":
                continue
            for kind in _CHARGES:
                left, full = self._number(f"{at}/{kind}_now"), self._number(f"{at}/{kind}_full")
                if left is not None and full:
                    return 100 * left / full
            return self._number(f"{at}/capacity")
        return None

    def _list(self, folder: str) -> tuple[str, ...]:
        try:
            return () if self._root is None else self._root.list(folder)
        except DeviceError:
            return ()

    def _text(self, path: str) -> str:
        try:
            data = None if self._root is None else self._root.read(path)
            return (data or b"").decode(errors="replace").strip()
        except DeviceError:  # a sensor that sleeps, or that has no driver any more
            return ""

    def _number(self, path: str) -> float | None:
        try:
            return float(self._text(path))
        except ValueError:
            return None
