"""The sensors of a board are read from a folder of files, as the kernel shows them in sysfs."""

from pathlib import Path

import pytest

from edgefleet.agent.board import BoardSensors
from edgefleet.agent.cost_figures import Board
from edgefleet.base.errors import DeviceError
from edgefleet.base.storage import FolderStorage
from support.memory_storage import MemoryStorage

Files = dict[str, str]


def sysfs(files: Files) -> MemoryStorage:
    disk = MemoryStorage()
    disk.files = {path: f"{text}\n".encode() for path, text in files.items()}
    return disk


def read(files: Files) -> Board | None:
    return BoardSensors(sysfs(files)).read()


ZONES: Files = {
    "class/thermal/thermal_zone0/temp": "51000",
    "class/thermal/thermal_zone1/temp": "63500",
    "class/thermal/thermal_zone2/temp": "-274000",  # a zone without a sensor
    "class/thermal/thermal_zone3/temp": "",
}


def battery(**fields: str) -> Files:
    told = {"type": "Battery", "status": "Discharging", **fields}
    return {f"class/power_supply/BAT0/{name}": text for name, text in told.items()}


def test_a_machine_without_sensors_reports_nothing() -> None:
    assert read({}) is None
    assert BoardSensors(None).read() is None
    assert read({"class/thermal/thermal_zone0/type": "acpitz"}) is None


def test_the_temperature_is_that_of_the_hottest_zone() -> None:
    assert read(ZONES) == Board(temperature_c=63.5)


@pytest.mark.parametrize(
    ("kind", "state", "throttled"),
    [("Processor", "3", True), ("cpufreq-cpu0", "0", False), ("thermal-cpufreq-1", "1", True),
     ("Fan", "5", None)],
)  # fmt: skip
def test_a_cooling_device_of_the_processor_says_that_it_is_slowed(
    kind: str, state: str, throttled: bool | None
) -> None:
    at = "class/thermal/cooling_device0"
    found = read({f"{at}/type": kind, f"{at}/cur_state": state})
    assert (found.is_throttled if found else None) is throttled


@pytest.mark.parametrize(
    ("bits", "throttled"), [("0x0", False), ("0x50000", False), ("0x50004", True), ("0x2", True)]
)
def test_the_firmware_of_a_raspberry_pi_says_it_in_bits(bits: str, throttled: bool) -> None:
    assert read({"devices/platform/soc/soc:firmware/get_throttled": bits}) == Board(
        is_throttled=throttled
    )


def test_counters_of_throttling_say_it_by_their_growth() -> None:
    at = "devices/system/cpu/cpu{}/thermal_throttle/core_throttle_count"
    disk = sysfs({at.format(0): "7", at.format(1): "9"})
    sensors = BoardSensors(disk)
    assert sensors.read() == Board(is_throttled=False)
    disk.files[at.format(1)] = b"10\n"
    assert sensors.read() == Board(is_throttled=True)
    assert sensors.read() == Board(is_throttled=False)


@pytest.mark.parametrize(
    ("fields", "percent"),
    [({"energy_now": "30", "energy_full": "40", "capacity": "74"}, 75.0),
     ({"charge_now": "10", "charge_full": "40"}, 25.0),
     ({"capacity": "74"}, 74.0),
     ({"energy_now": "30", "energy_full": "0", "capacity": "74"}, 74.0),
     ({"capacity": "74", "status": "Charging"}, None),
     ({"capacity": "74", "scope": "Device"}, None),
     ({"capacity": "74", "type": "Mains"}, None)],
)  # fmt: skip
def test_a_battery_counts_while_it_discharges(fields: Files, percent: float | None) -> None:
    found = read(battery(**fields))
    assert (found.battery_percent if found else None) == percent


class Asleep(MemoryStorage):
    """A disk whose files exist and cannot be read, like a sensor that sleeps."""

    def read(self, path: str) -> bytes | None:
        raise DeviceError("disk_failed", f"{path}: Resource temporarily unavailable")


def test_a_sensor_that_cannot_be_read_is_no_sensor() -> None:
    disk = Asleep()
    disk.files = sysfs({**ZONES, **battery(capacity="50")}).files
    assert BoardSensors(disk).read() is None


def test_the_sensors_are_read_from_a_folder(tmp_path: Path) -> None:
    for path, text in {**ZONES, **battery(capacity="50")}.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    found = BoardSensors(FolderStorage(tmp_path)).read()
    assert found == Board(temperature_c=63.5, battery_percent=50.0)
