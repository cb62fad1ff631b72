"""Memory of a fleet with shared and with unique label sets, and the time of a selector.

``python bench/unique_labels.py [DEVICES]``. Each case runs in a process of its own.
"""

import subprocess
import sys
import time
from pathlib import Path

from edgefleet.hub.label_owners import LabelOwners
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.selector import parse

SITES = 100
PAGE_BYTES = 4096


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * PAGE_BYTES / 2**20


def measure(devices: int, kind: str) -> None:
    fleet, owners = Fleet(listening_since=0, offline_after_s=9), LabelOwners()
    before = resident_mib()
    for number in range(devices):
        labels = {"site": f"s{number % SITES}"}
        if kind == "unique":
            labels["serial"] = f"sn{number:08d}"
        name = f"device-{number:07d}"
        fleet.add(name, "generic_x86", owners.add({}, labels), runtimes=("onnx",))
    memory_mib = resident_mib() - before
    selector, began = parse("site=s7"), time.process_time()
    found = int(fleet.selected(selector).sum())
    took_ms = 1e3 * (time.process_time() - began)
    print(
        f"{kind}: {devices} devices, {memory_mib:.0f} MiB; site=s7: {found} in {took_ms:.1f} ms CPU"
    )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(int(sys.argv[1]), sys.argv[2])
    else:
        count = sys.argv[1] if len(sys.argv) > 1 else "300000"
        for one in ("shared", "unique"):
            subprocess.run([sys.executable, __file__, count, one], check=True)
