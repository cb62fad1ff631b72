"""Time and memory of the simulator by size of the fleet. Writes bench/out/sim.json.

Each size runs in its own process on one core: the scenario ``good`` with every checker. The largest
size runs twice more, with three models on its devices: with one rollout, and with three, each of
which begins when the one before it has ended. The exit
code is 1 if the largest size exceeds its time or memory limit, if several models cost too many
times the CPU time of one, or if a checker reports a violation.

``python bench/sim.py 100000`` makes that the largest size.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from result_file import write

LARGEST = 1_000_000
SEED = 7
RSS_MIB = 1229  # of the largest size, with one model or three
LIMITS = {"wall_s": 180.0, "peak_rss_mib": RSS_MIB}  # with one model
TIMES = {"three models": 1.3, "three rollouts": 3.2}  # CPU time, as multiples of one model's
PLAN = """\
[{place}]
model = "{model}"
release = "2"
[{place}.pace]
starts_per_minute = 30000
"""
SIDE = """\
[[beside]]
at_s = {at_s}
"""
THREE = 'title = "three models"\nexpect = ["completed"]\n[fleet]\nmodels = 3\nmodel_share = 1.0\n'
AFTER_S = 3300  # a rollout to the largest size takes less
SAID = ("devices", "wall_s", "cpu_s", "peak_rss_mib", "events", "events_per_s", "steps", "stepped")


def scenario(name: str, folder: Path) -> str:
    """The name of a scenario, or the file of one with three models."""
    if name not in TIMES:
        return name
    text = THREE + PLAN.format(place="rollout", model="digits")
    if name == "three rollouts":
        for turn, model in enumerate(("detector", "faces"), 1):
            text += SIDE.format(at_s=turn * AFTER_S) + PLAN.format(
                place="beside.rollout", model=model
            )
    file = folder / f"{name.replace(' ', '_')}.toml"
    file.write_text(text)
    return str(file)


def played(devices: int, scenario: str = "good") -> dict[str, object]:
    """The last line of ``edgefleet sim run``."""
    program = Path(sys.executable).parent / "edgefleet"
    words = ("sim", "run", "--scenario", scenario, "--json")
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


def cpu_s(run: dict[str, object]) -> float:
    return float(str(run["cpu_s"]))


def main() -> int:
    one_core()
    largest = int(sys.argv[1]) if len(sys.argv) > 1 else LARGEST
    names = ["good", "good", "good", *TIMES]
    sizes = [largest // 100, largest // 10, *[largest] * (1 + len(TIMES))]
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            played(devices, scenario(name, Path(folder)))
            for name, devices in zip(names, sizes, strict=True)
        ]
    print("".ljust(15) + "".join(name.rjust(13) for name in SAID) + "us a device".rjust(13))
    for name, run in zip(names, runs, strict=True):
        micros = 1e6 * cpu_s(run) / int(str(run["devices"]))
        print(
            name.ljust(15) + "".join(str(run[name]).rjust(13) for name in SAID) + f"{micros:13.0f}"
        )
    large, several = runs[2], dict(zip(names[3:], runs[3:], strict=True))
    times = {name: round(cpu_s(run) / cpu_s(large), 2) for name, run in several.items()}
    broken = [name for name, limit in LIMITS.items() if float(str(large[name])) > limit]
    broken += [name for name, limit in TIMES.items() if times[name] > limit]
    broken += [
        f"{name}: peak_rss_mib"
        for name, run in several.items()
        if float(str(run["peak_rss_mib"])) > RSS_MIB
    ]
    broken += ["violations"] if any(run["violations"] for run in runs) else []
    kept = (*SAID, "violations", "verdict")
    result = {
        "runs": [
            {"scenario": name} | {key: run[key] for key in kept}
            for name, run in zip(names, runs, strict=True)
        ],
        "times": times,
        "limits": {**LIMITS, **TIMES},
        "broken": broken,
    }
    write("sim", result)
    print(json.dumps({"broken": broken, "wall_s": large["wall_s"], "times": times}))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
