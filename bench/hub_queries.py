# ruff: noqa: SLF001 - the rows are put into the columns without a million enrolments
"""Lists of a million devices: count and page, by filter. Writes bench/out/hub_queries_*.json.

``--labels unique`` gives as many devices a label of their own as the hub allows label sets. A count
reads every selected row; a page makes the views of 100 devices. Each value is the median of seven,
in milliseconds of CPU, of ``Hub.devices`` without HTTP; ``json_ms`` is the encoding of the page.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
from result_file import write

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from edgefleet.hub.hub import Hub
from edgefleet.hub.limits import LABEL_SETS
from edgefleet.hub.settings import HubSettings
from edgefleet.hub.store.records import StoredDevice
from edgefleet.protocol.device import CheckIn, Facts, ModelReport, Phase
from edgefleet.protocol.device_commands import DeviceFilter
from edgefleet.protocol.version import PROTOCOL
from edgefleet.protocol.wire import encode
from edgefleet.security.signing import PublisherKey
from support.hub_inside import publish_inside
from support.tiny_releases import tiny_release

COUNT_MS = 20.0
PAGE_MS = 50.0
FILTERS = {
    "all": DeviceFilter(),
    "selector": DeviceFilter(selector="site=site-7"),
    "selector_not": DeviceFilter(selector="site notin (site-7,site-8),tier"),
    "runs": DeviceFilter(runs="digits:1"),
    "phase": DeviceFilter(phase="trial"),
    "online": DeviceFilter(states=("online",)),
    "profile": DeviceFilter(profile="jetson_nano"),
    "agent": DeviceFilter(agent="0.1.0"),
    "all_together": DeviceFilter(
        selector="site in (site-7,site-8)", phase="idle", states=("online",), agent="0.1.0"
    ),
}


def fill(hub: Hub, devices: int, *, unique: int) -> None:
    """Devices on 200 sites, of which each hundredth is in a trial."""
    now = hub.clock.now()
    kits = [
        Facts(profile=profile, agent_version=version, runtimes=("onnx",))
        for profile in ("generic_x86", "jetson_nano")
        for version in ("0.1.0", "0.2.0")
    ]
    sites = [{"site": f"site-{n}", "tier": "gold" if n % 3 else "silver"} for n in range(200)]
    for row in range(devices):
        labels = sites[row % 200]
        if row < unique:
            labels = {**labels, "serial": f"sn{row}"}
        hub._devices._add(StoredDevice(row, f"d{row:07}", now, labels, kits[row % 4], {}))
    fleet = hub._engine.fleet
    rows = np.arange(devices)
    for phase, chosen in ((Phase.IDLE, rows), (Phase.TRIAL, rows[::100])):
        report = ModelReport(model="digits", release="1", phase=phase)
        fleet.observe_all_models(chosen, now, CheckIn(protocol=PROTOCOL, seq=1, models=(report,)))


def timed(call) -> float:
    found = []
    for _ in range(7):
        began = process_time()
        call()
        found.append((process_time() - began) * 1e3)
    return round(median(found), 2)


async def measure(devices: int, *, unique: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        hub = await Hub.open(HubSettings(data_dir=Path(folder) / "data"))
        try:
            await publish_inside(
                hub, PublisherKey.generate(), tiny_release(Path(folder) / "releases", "1")
            )
            fill(hub, devices, unique=unique)
            only = dict(FILTERS)
            if unique:
                only["unique"] = DeviceFilter(selector=f"serial=sn{unique - 1}")
            found: dict[str, object] = {"devices": devices, "unique_labels": unique}
            for name, chosen in only.items():
                page = hub.devices(None, 100, chosen)
                found[name] = {
                    "devices": page.count,
                    "count_ms": timed(lambda only=chosen: hub._queries.rows(only, hub.clock.now())),
                    "page_ms": timed(lambda chosen=chosen: hub.devices(None, 100, chosen)),
                    "json_ms": timed(lambda page=page: encode(page)),
                }
            return found
        finally:
            hub._devices.flush = nothing  # the rows are not in the database
            await hub.close()


async def nothing() -> None:
    pass


def main() -> int:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--devices", type=int, default=1_000_000)
    given.add_argument("--labels", choices=("shared", "unique"), default="shared")
    options = given.parse_args()
    unique = LABEL_SETS - 1_000 if options.labels == "unique" else 0
    found = asyncio.run(measure(options.devices, unique=unique))
    write(f"hub_queries_{options.labels}", found)
    slow = [
        name
        for name, one in found.items()
        if isinstance(one, dict) and (one["count_ms"] > COUNT_MS or one["page_ms"] > PAGE_MS)
    ]
    print(found, "above the limit:", slow)
    return int(bool(slow))


if __name__ == "__main__":
    sys.exit(main())
