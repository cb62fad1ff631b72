"""The cost of the engine with a million devices. Writes bench/out/engine.json.

``report_us`` is the engine's time for the reports of one device: a check-in that announces a start
and one that confirms it, each with sequence number, running release, outcome and answer. Verbs are
timed from the operator's call to the committed state. ``why_ms`` is measured in the middle of the
last wave, ``why_first_ms`` directly after each wave opened. Each value is the median of its runs.
"""

import gc
import json
import platform
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from edgefleet.protocol.device import CheckIn, Outcome, OutcomeKind, Phase
from edgefleet.protocol.rollout import ExposureSpec, RolloutSpec, Verb, WaveSpec
from edgefleet.protocol.version import ONE_MODEL
from edgefleet.rollout.checkin import Pending, begin, finish
from edgefleet.rollout.engine import Engine
from edgefleet.sim.virtual.releases import manifest
from edgefleet.sim.virtual.scenario import MODEL, NEW, OLD, Scenario

DEVICES = 1_000_000
REPORTS = 20_000
RUNS = 3
NOW = 1_767_571_200.0
LIMITS = {
    "report_us": 20.0,
    "start_ms": 50.0,
    "advance_ms": 50.0,
    "halt_ms": 50.0,
    "revert_ms": 50.0,
    "why_first_ms": 20.0,  # computes the rows of the wave, once
    "why_ms": 5.0,
}
OUT = Path(__file__).parent / "out" / "engine.json"


def fleet() -> Engine:
    engine = Engine(now=NOW)
    for release in (OLD, NEW):
        engine.add_release(*manifest(release, Scenario(title=""), NOW))
    sites = [{"site": f"site-{number}"} for number in range(200)]
    for row in range(DEVICES):
        engine.fleet.add(f"d{row:07}", "generic_x86", sites[row % 200])
    rows = np.arange(DEVICES)
    running = np.full(DEVICES, engine.fleet.models.release_id(MODEL, OLD), np.uint32)
    engine.fleet.heartbeats(rows, NOW, running)
    return engine


def planned(engine: Engine, number: int) -> str:
    spec = RolloutSpec(
        model=MODEL,
        release=NEW,
        waves=tuple(WaveSpec(percent=percent) for percent in (1, 10, 100)),
        exposure=ExposureSpec(first=DEVICES),
    )
    rollout = f"ro-{number}"
    engine.load(engine.plan(spec, rollout_id=rollout, salt=number * 7919, now=NOW))
    return rollout


def said(engine: Engine, rollout: str, verb: Verb, now: float) -> float:
    """Milliseconds from the call to the committed state."""
    began = perf_counter()
    engine.commit(engine.command(rollout, verb, now=now))
    return (perf_counter() - began) * 1e3


def asked(engine: Engine, rollout: str, now: float) -> float:
    began = perf_counter()
    engine.why_rollout(rollout, now)
    return (perf_counter() - began) * 1e3


def reports(engine: Engine, rollout: str, first: int) -> float:
    """Microseconds for one report; ``REPORTS`` devices start and confirm."""
    start, confirmed = (
        CheckIn(
            protocol=ONE_MODEL,
            seq=seq,
            phase=phase,
            model=MODEL,
            release=release,
            outcomes=(
                Outcome(id=f"{rollout}/1/{kind}", rollout=rollout, release=NEW, kind=kind, at=NOW),
            ),
        )
        for seq, phase, release, kind in (
            (1, Phase.STAGED, OLD, OutcomeKind.TRIAL_STARTED),
            (2, Phase.IDLE, NEW, OutcomeKind.CONFIRMED),
        )
    )
    began = perf_counter()
    for row in range(first, first + REPORTS):
        for check_in in (start, confirmed):
            now = NOW + 1 + check_in.seq
            step = begin(engine, row, check_in, now)
            while isinstance(step, Pending):
                step = finish(engine, step, step.to_store, now)
    return (perf_counter() - began) * 1e6 / (2 * REPORTS)


def main() -> int:
    gc.disable()
    times: dict[str, list[float]] = {name: [] for name in LIMITS}
    for number in range(1, RUNS + 1):
        engine = fleet()
        rollout = planned(engine, number)
        times["start_ms"].append(said(engine, rollout, Verb.START, NOW))
        times["why_first_ms"].append(asked(engine, rollout, NOW))
        for step in (1, 2):
            times["advance_ms"].append(said(engine, rollout, Verb.ADVANCE, NOW + step))
            times["why_first_ms"].append(asked(engine, rollout, NOW + step))
        times["report_us"].append(reports(engine, rollout, number * REPORTS))
        times["why_ms"] += [asked(engine, rollout, NOW + 4 + step) for step in range(5)]
        times["halt_ms"].append(said(engine, rollout, Verb.HALT, NOW + 10))
        times["revert_ms"].append(said(engine, rollout, Verb.REVERT, NOW + 11))
    found = {name: round(median(values), 3) for name, values in times.items()}
    slow = [name for name, limit in LIMITS.items() if found[name] > limit]
    result = {
        "devices": DEVICES,
        "reports": REPORTS,
        **found,
        "runs": {name: [round(value, 3) for value in values] for name, values in times.items()},
        "limits": LIMITS,
        "slow": slow,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({"devices": DEVICES, **found, "slow": slow}))
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
