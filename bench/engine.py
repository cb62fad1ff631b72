"""The cost of the engine with a million devices. Writes bench/out/engine.json.

``report_us`` is the engine's time for the reports of one device: a check-in that announces a start
and one that confirms it, each with sequence number, the changed model, outcome and answer.
``heartbeat_us`` is that of a check-in that changes nothing, of a device that runs its release. Both
are measured on devices with one model and, in the same run, on devices with three, two of which
come from completed rollouts; ``three_models`` is the ratio of the reports. Verbs are
timed from the operator's call to the committed state. ``why_ms`` is measured in the middle of the
last wave, ``why_first_ms`` directly after each wave opened. Each value is the median of its runs.
"""

import gc
import json
import sys
from statistics import median
from time import perf_counter, process_time

import numpy as np
from result_file import write

from edgefleet.protocol.device import CheckIn, ModelReport, Outcome, OutcomeKind, Phase, digest
from edgefleet.protocol.rollout import ExposureSpec, RolloutSpec, Status, Verb, WaveSpec
from edgefleet.protocol.version import PROTOCOL
from edgefleet.rollout.checkin import Pending, begin, finish
from edgefleet.rollout.engine import Engine
from edgefleet.sim.virtual.releases import manifest
from edgefleet.sim.virtual.scenario import MODEL, MODELS, NEW, OLD, Scenario

DEVICES = 1_000_000
REPORTS = 20_000
RUNS = 3
NOW = 1_767_571_200.0
OTHERS = MODELS[1:3]
LIMITS = {
    "report_us": 20.0,
    "report_us_three_models": 40.0,
    "heartbeat_us": 5.0,
    "heartbeat_us_three_models": 15.0,
    "three_models": 2.0,
    "start_ms": 50.0,
    "advance_ms": 50.0,
    "halt_ms": 50.0,
    "revert_ms": 50.0,
    "why_first_ms": 20.0,  # computes the rows of the wave, once
    "why_ms": 5.0,
}


def fleet(models: int = 1) -> Engine:
    """Devices that run one release of each model. Completed rollouts gave them the others."""
    engine = Engine(now=NOW)
    for release in (OLD, NEW):
        engine.add_release(*manifest(MODEL, release, Scenario(title=""), NOW))
    sites = [{"site": f"site-{number}"} for number in range(200)]
    for row in range(DEVICES):
        engine.fleet.add(f"d{row:07}", "generic_x86", sites[row % 200])
    rows = np.arange(DEVICES)
    running = np.full(DEVICES, engine.fleet.models.release_id(MODEL, OLD), np.uint32)
    engine.fleet.heartbeats(rows, NOW, running)
    for number, model in enumerate(OTHERS[: models - 1]):
        engine.add_release(*manifest(model, NEW, Scenario(title=""), NOW))
        rollout = planned(engine, number + 50, model)
        engine.commit(engine.command(rollout, Verb.START, now=NOW))
        while engine.rollout(rollout).state.status is Status.RUNNING:
            engine.commit(engine.command(rollout, Verb.ADVANCE, now=NOW))
    for row in range(DEVICES):
        check_in = CheckIn(protocol=PROTOCOL, seq=1, models=on_device(OLD, models=models))
        engine.fleet.observe_models(row, NOW, check_in)
    return engine


def on_device(
    release: str, phase: Phase = Phase.IDLE, *, models: int = 1
) -> tuple[ModelReport, ...]:
    """The models of a device."""
    others = (ModelReport(model=model, release=NEW) for model in OTHERS[: models - 1])
    return (ModelReport(model=MODEL, release=release, phase=phase), *others)


def planned(engine: Engine, number: int, model: str = MODEL) -> str:
    spec = RolloutSpec(
        model=model,
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


def reports(engine: Engine, rollout: str, first: int, models: int) -> float:
    """Microseconds for one report; ``REPORTS`` devices start and confirm."""
    start, confirmed = (
        CheckIn(
            protocol=PROTOCOL,
            seq=seq,
            digest=digest(on_device(release, phase, models=models)),
            models=on_device(release, phase),
            outcomes=(
                Outcome(id=f"{rollout}/1/{kind}", rollout=rollout, release=NEW, kind=kind, at=NOW),
            ),
        )
        for seq, phase, release, kind in (
            (2, Phase.STAGED, OLD, OutcomeKind.TRIAL_STARTED),
            (3, Phase.IDLE, NEW, OutcomeKind.CONFIRMED),
        )
    )
    began = process_time()
    for row in range(first, first + REPORTS):
        for check_in in (start, confirmed):
            now = NOW + 1 + check_in.seq
            step = begin(engine, row, check_in, now)
            while isinstance(step, Pending):
                step = finish(engine, step, step.to_store, now)
    return (process_time() - began) * 1e6 / (2 * REPORTS)


def heartbeats(engine: Engine, first: int, models: int) -> float:
    """Microseconds for a check-in of a device that has confirmed and waits for nothing."""
    check_in = CheckIn(protocol=PROTOCOL, seq=9, digest=digest(on_device(NEW, models=models)))
    began = process_time()
    for row in range(first, first + REPORTS):
        begin(engine, row, check_in, NOW + 9)
    return (process_time() - began) * 1e6 / REPORTS


def measure_models(times: dict[str, list[float]], number: int) -> None:
    """Measure reports and heartbeats of devices with three models."""
    engine = fleet(3)
    rollout = planned(engine, number)
    engine.commit(engine.command(rollout, Verb.START, now=NOW))
    for step in (1, 2):
        engine.commit(engine.command(rollout, Verb.ADVANCE, now=NOW + step))
    report_us = reports(engine, rollout, number * REPORTS, 3)
    times["report_us_three_models"].append(report_us)
    times["three_models"].append(report_us / times["report_us"][-1])
    times["heartbeat_us_three_models"].append(heartbeats(engine, number * REPORTS, 3))


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
        times["report_us"].append(reports(engine, rollout, number * REPORTS, 1))
        times["heartbeat_us"].append(heartbeats(engine, number * REPORTS, 1))
        times["why_ms"] += [asked(engine, rollout, NOW + 4 + step) for step in range(5)]
        times["halt_ms"].append(said(engine, rollout, Verb.HALT, NOW + 10))
        times["revert_ms"].append(said(engine, rollout, Verb.REVERT, NOW + 11))
        measure_models(times, number)
    found = {name: round(median(values), 3) for name, values in times.items()}
    slow = [name for name, limit in LIMITS.items() if found[name] > limit]
    result = {
        "devices": DEVICES,
        "reports": REPORTS,
        **found,
        "runs": {name: [round(value, 3) for value in values] for name, values in times.items()},
        "limits": LIMITS,
        "slow": slow,
    }
    write("engine", result)
    print(json.dumps({"devices": DEVICES, **found, "slow": slow}))
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
