"""SIGKILL to the agent in each phase of the update path, on a device with three models.

Two rollouts are open at once in each round, one of a good release and one of a bad one, while a
client of each model never stops. After each kill the pointer must name confirmed releases and the
serving process must serve each model with a release that a rollout asked for. No request may fail.
A kill counts in the phases of both models.
Writes bench/out/kills.json. Needs `make models`.

``python bench/kills.py [GOAL]`` kills at least GOAL times in each phase (default 10).
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from result_file import write

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.kill_sweep import PHASES, Sweep  # noqa: E402 - after the path
from support.three_models import home, unavailable  # noqa: E402 - after the path

SEED = 3
ROUNDS_PER_KILL = 4


def main() -> int:
    goal = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    if reason := unavailable():
        raise SystemExit(reason)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="edgefleet-kills-") as folder,
        home(Path(folder)) as device,
    ):
        sweep = Sweep(device, seed=SEED)
        with device.clients(pause_s=0.02) as clients:
            for client in clients.values():
                client.wait_for_answers(40)
            sweep.until(goal, rounds=ROUNDS_PER_KILL * goal)
            for client in clients.values():
                client.wait_for_answers(40)
        faults = {model: client.faults for model, client in clients.items()}
    figures = {
        "rounds": sweep.rounds,
        "kills": sweep.total,
        "kills_in_phase": {phase: sweep.kills[phase] for phase in PHASES},
        "requests": {model: len(one.answers) + len(one.faults) for model, one in clients.items()},
        "failed": {model: len(found) for model, found in faults.items()},
        "seconds": round(time.monotonic() - began),
    }
    write("kills", figures | {"faults": faults})
    print(json.dumps(figures))
    is_swept = all(sweep.kills[phase] >= goal for phase in PHASES)
    return 0 if is_swept and not any(faults.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
