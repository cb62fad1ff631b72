"""The JSON file of a benchmark: its result and the facts of the machine, under bench/out."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path


def machine() -> dict[str, object]:
    """The facts of this machine, which the figures depend on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def path_of(name: str) -> Path:
    """The file of the benchmark NAME."""
    return Path(__file__).parent / "out" / f"{name}.json"


def write(place: str | Path, result: Mapping[str, object]) -> Path:
    """Write ``result`` to the file, or to bench/out/NAME.json. Returns the path."""
    path = path_of(place) if isinstance(place, str) else place
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**result, "machine": machine()}, indent=2) + "\n")
    return path


def show(part: str, found: Mapping[str, float], limits: Mapping[str, tuple[str, float]]) -> bool:
    """Print the figures of a part. Returns whether all limits are kept."""
    good = True
    print(f"{part}:")
    for figure, value in found.items():
        how, limit = limits.get(figure, ("", 0.0))
        bad = bool(how) and not (value <= limit if how == "<=" else value >= limit)
        good = good and not bad
        wanted = f"  wanted {how} {limit:g}{'  MISSED' if bad else ''}" if how else ""
        print(f"  {figure:28}{value:12.3f}{wanted}", flush=True)
    return good


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
