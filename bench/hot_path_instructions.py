"""The instructions of a REST request to the tiny model, by stage. Writes bench/out/hot_path.json.

Instructions, counted by valgrind, are the same on a busy machine: a change of one percent shows.
They are not time: a system call and a cache miss cost more. bench/serving.py measures time.

The real connections of ``http1`` answer the real requests of bench/serving.py with the real handler
and tick batching; only the sockets are missing. 16 connections have one request each in a turn of
the event loop. The reference, in the same process, is decode, run and encode without a server.

Each stage is counted apart, with the objects of the whole path. ``schedule`` is the rest: the state
of the connection, the tick and the event loop.

``python bench/hot_path_instructions.py`` needs valgrind and some minutes: without valgrind it says
so and ends with exit code 0. ``--time`` shows the least CPU time of each stage instead, without
valgrind, in seconds. On a busy machine the whole is then too long: its code is not in the caches.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from os import environ
from pathlib import Path

import msgspec
from hot_path_stages import CONNECTIONS
from result_file import write
from serving_models import tiny

TURNS = 10
TIMED_TURNS = 500
STAGES = ("read", "route", "decode", "run", "encode", "write")
PROGRAM = Path(__file__).with_name("hot_path_stages.py")


def counted(release: Path, counts: Path) -> dict[str, float]:
    """The instructions a request of each stage."""
    done = run(
        release,
        TURNS,
        "valgrind", "--tool=callgrind", "--dump-before=getpriority",
        f"--callgrind-out-file={counts}",
    )  # fmt: skip
    # The counts before the first stage, then those of a stage and of the way to the next one.
    return {
        stage: _instructions(counts.with_suffix(f".{2 * place + 2}")) / (TURNS * CONNECTIONS)
        for place, stage in enumerate(done)
    }


def run(release: Path, turns: int, *under: str) -> dict[str, float]:
    """The least CPU time of each stage in nanoseconds a request."""
    done = subprocess.run(
        [*under, sys.executable, str(PROGRAM), str(release), str(turns)],
        capture_output=True,
        text=True,
        check=False,
        env={**environ, "PYTHONHASHSEED": "0", "EDGEFLEET_SERVING_THREADS": "1"},
    )
    if done.returncode:
        sys.exit(f"the stages failed:\n{done.stderr}")
    times: dict[str, float] = json.loads(done.stdout)
    return times


def _instructions(dump: Path) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", dump.read_text(), re.MULTILINE)
    if found is None:
        sys.exit(f"{dump} has no counts")
    return int(found[1])


def table(found: dict[str, float]) -> dict[str, float]:
    """The stages and what is left, which together are the whole."""
    rows = {stage: found[stage] for stage in STAGES}
    rows["telemetry"] = found["answer"] - found["encode"]
    rows["schedule"] = found["whole"] - sum(rows.values())
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description="The instructions of a request, by stage.")
    parser.add_argument(
        "--time", action="store_true", help="the least CPU time in nanoseconds instead"
    )
    options = parser.parse_args()
    if not options.time and shutil.which("valgrind") is None:
        print("valgrind is not installed: the instructions are not counted.")
        return 0
    with tempfile.TemporaryDirectory() as name:
        release = Path(name, "release.json")
        release.write_bytes(msgspec.json.encode(tiny(Path(name, "tiny.onnx"))))
        if options.time:
            found = run(release, TIMED_TURNS)
        else:
            found = counted(release, Path(name, "counts"))
    rows = table(found)
    for stage, number in rows.items():
        print(f"  {stage:12}{number:12,.0f}{number / found['whole']:8.1%}")
    print(f"  {'whole':12}{found['whole']:12,.0f}")
    print(f"  {'in process':12}{found['in process']:12,.0f}")
    ratio = found["in process"] / found["whole"]
    print(f"in process / whole: {ratio:.2f}, without sockets")
    if not options.time:
        result = {"stages": rows, **found, "ratio_without_sockets": ratio}
        print(f"written to {write('hot_path', result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
