"""Time and memory of the simulator by size of the fleet. Writes bench/out/sim.json.

Each size runs in its own process on one core: the scenario ``good`` with every checker. The exit
code is 1 if the largest size exceeds its time or memory limit, or if a checker reports a violation.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from result_file import write

SIZES = (10_000, 100_000, 1_000_000)
SEED = 7
LIMITS = {"wall_s": 180.0, "peak_rss_mib": 2048}
SAID = ("devices", "wall_s", "cpu_s", "peak_rss_mib", "events", "events_per_s", "steps", "stepped")


def played(devices: int) -> dict[str, object]:
    """The last line of ``edgefleet sim run``."""
    program = Path(sys.executable).parent / "edgefleet"
    words = ("sim", "run", "--scenario", "good", "--json")
    ended = subprocess.run(
        [program, *words, "--devices", str(devices), "--seed", str(SEED)],
        capture_output=True,
        text=True,
        check=True,
    )
    said: dict[str, object] = json.loads(ended.stdout.splitlines()[-1])
    return said


def one_core() -> None:
    """Pin the process to one core, if the system supports it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def main() -> int:
    one_core()
    runs = [played(devices) for devices in SIZES]
    print("".join(name.rjust(13) for name in SAID) + "us a device".rjust(13))
    for run in runs:
        micros = 1e6 * float(str(run["cpu_s"])) / int(str(run["devices"]))
        print("".join(str(run[name]).rjust(13) for name in SAID) + f"{micros:13.0f}")
    large = runs[-1]
    broken = [name for name, limit in LIMITS.items() if float(str(large[name])) > limit]
    broken += ["violations"] if any(run["violations"] for run in runs) else []
    result = {
        "runs": [{name: run[name] for name in (*SAID, "violations", "verdict")} for run in runs],
        "limits": LIMITS,
        "broken": broken,
    }
    write("sim", result)
    print(json.dumps({"broken": broken, "wall_s": large["wall_s"], "cpu_s": large["cpu_s"]}))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
