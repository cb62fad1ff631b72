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
    took_ms, found = [], 0
    for site in ("s7", "s8"):
        began = time.process_time()
        found = int(fleet.selected(parse(f"site={site}")).sum())
        took_ms.append(1e3 * (time.process_time() - began))
    print(
        f"{kind}: {devices} devices, {memory_mib:.0f} MiB; {found} of site=s8 in {took_ms[1]:.1f}"
        f" ms CPU, and the first selector with site in {took_ms[0]:.1f} ms"
    )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(int(sys.argv[1]), sys.argv[2])
    else:
        count = sys.argv[1] if len(sys.argv) > 1 else "300000"
        for one in ("shared", "unique"):
            subprocess.run([sys.executable, __file__, count, one], check=True)
