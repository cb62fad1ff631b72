"""The cost of finished rollouts at the hub. Writes bench/out/hub_history.json.

``history_slope_us`` is the CPU time that one finished rollout adds to a check-in. It comes from
heartbeats of the devices of one site, which are measured with 0, 50 and 200 finished rollouts of
other sites in one run. ``restart_cpu_s`` is the CPU time of a process from its start until the hub
has loaded, for a database with devices, 200 finished rollouts and two outcomes for each device.
``first_start_cpu_s`` is the same for a database without a snapshot. ``restart_mib`` is the resident
memory that the loaded hub adds to an empty one.

``--full`` measures the restart with 1,000,000 devices and 2,000,000 outcomes.
"""

import argparse
import asyncio
import gc
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from time import perf_counter, process_time

import msgspec
import numpy as np
from msgspec.structs import replace
from result_file import show, write

from edgefleet.hub.hub import Hub
from edgefleet.hub.settings import HubSettings
from edgefleet.protocol.device import CheckIn, Facts, ModelReport, Outcome, OutcomeKind, digest
from edgefleet.protocol.rollout import RolloutSpec, Status, Verb, WaveSpec
from edgefleet.protocol.version import PROTOCOL
from edgefleet.rollout.checkin import begin
from edgefleet.rollout.engine import Engine
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.security.signing import PublisherKey, open_manifest, sign_manifest
from edgefleet.sim.virtual.releases import manifest
from edgefleet.sim.virtual.scenario import MODEL, NEW, OLD, Scenario

NOW = 1_767_571_200.0  # long ago, so no start is recent
SITES = 201  # one more than the most finished rollouts
HISTORIES = (0, 50, 200)
DEVICES_OF_SLOPE = 20_100
ROUNDS = 20
RUNS = 5
QUICK, FULL = 100_000, 1_000_000
MODELS_NEW = (ModelReport(model=MODEL, release=NEW),)
RUNS_NEW = digest(MODELS_NEW)
LIMITS = {
    "history_slope_us": ("<=", 0.001),
    "restart_cpu_s": ("<=", 10.0),
    "restart_mib": ("<=", 150.0),
}


def engine_with(devices: int) -> Engine:
    """A fleet on the old release, spread over the sites."""
    engine = Engine(now=NOW)
    for release in (OLD, NEW):
        engine.add_release(*manifest(MODEL, release, Scenario(title=""), NOW))
    sites = [{"site": f"s{number:03}"} for number in range(SITES)]
    for row in range(devices):
        engine.fleet.add(f"d{row:07}", "generic_x86", sites[row % SITES])
    running = np.full(devices, engine.fleet.models.release_id(MODEL, OLD), np.uint32)
    engine.fleet.heartbeats(np.arange(devices), NOW, running)
    return engine


def finish_rollout(engine: Engine, site: int) -> str:
    """Roll the new release out to one site. Returns the id of the completed rollout."""
    rollout = f"ro-{site:04}"
    spec = RolloutSpec(
        model=MODEL,
        release=NEW,
        selector=f"site=s{site:03}",
        waves=(WaveSpec(percent=100),),
        bake_s=0,  # finished: not watched any more
    )
    engine.load(engine.plan(spec, rollout_id=rollout, salt=site * 7919 + 1, now=NOW))
    engine.commit(engine.command(rollout, Verb.START, now=NOW))
    rows = np.arange(site, len(engine.fleet), SITES)
    for kind in (OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED):
        engine.batch.record(rows, outcome(rollout, kind), NOW + 1)
    engine.commit(engine.command(rollout, Verb.ADVANCE, now=NOW + 2))
    active = engine.rollout(rollout)
    assert active.state.status is Status.COMPLETED
    assert not active.state.is_baking
    assert active.ledger.count(DeviceStanding.HEALTHY) == len(rows)
    return rollout


def outcome(rollout: str, kind: OutcomeKind) -> Outcome:
    return Outcome(id=f"{rollout}/1/{kind}", rollout=rollout, release=NEW, kind=kind, at=NOW + 1)


def heartbeats_us(engine: Engine, rows: list[int], first: int) -> float:
    """Microseconds of CPU for a check-in of a device that waits for nothing.

    The numbers of the check-ins begin with ``first``.
    """
    sent = tuple(CheckIn(protocol=PROTOCOL, seq=first + n, digest=RUNS_NEW) for n in range(ROUNDS))
    began = process_time()
    for check_in in sent:
        for row in rows:
            begin(engine, row, check_in, NOW + 10)
    return (process_time() - began) * 1e6 / (ROUNDS * len(rows))


def slope() -> dict[str, float]:
    """Heartbeats of one site, whose own rollout is the oldest, as other sites finish theirs."""
    engine = engine_with(DEVICES_OF_SLOPE)
    site = SITES - 1
    finish_rollout(engine, site)
    rows = list(range(site, DEVICES_OF_SLOPE, SITES))
    full = CheckIn(protocol=PROTOCOL, seq=1, models=MODELS_NEW, digest=RUNS_NEW, full=True)
    for row in rows:
        begin(engine, row, full, NOW + 5)
    found: dict[str, float] = {}
    done, seq = 0, 2
    gc.disable()
    for count in HISTORIES:
        for number in range(done, count):
            finish_rollout(engine, number)
        done = count
        heartbeats_us(engine, rows, seq)  # fills caches
        times: list[float] = []
        for _ in range(RUNS):
            seq += ROUNDS
            times.append(heartbeats_us(engine, rows, seq))
        seq += ROUNDS
        found[f"heartbeat_us_{count}"] = round(min(times), 3)
    gc.enable()
    few, many = found[f"heartbeat_us_{HISTORIES[0]}"], found[f"heartbeat_us_{HISTORIES[-1]}"]
    found["history_slope_us"] = round((many - few) / HISTORIES[-1], 5)
    began = process_time()
    for _ in range(RUNS):
        engine.evaluated_rollouts()
    found["idle_tick_us"] = round((process_time() - began) * 1e6 / RUNS, 1)
    return found


# The restart.


def build(folder: Path, devices: int) -> None:
    """The data folder of a hub: devices, one finished rollout of each site, two outcomes each."""
    asyncio.run(opened_once(folder))
    engine = engine_with(SITES * 2)
    rollouts = [finish_rollout(engine, site) for site in range(SITES)]
    key = PublisherKey.generate()
    facts = msgspec.json.encode(Facts(profile="generic_x86", agent_version="1")).decode()
    with closing(sqlite3.connect(folder / "hub.sqlite")) as database:
        database.execute(
            "INSERT INTO trust VALUES (?, 'bench', ?)", (key.public.keyid, key.public.text)
        )
        for release in (OLD, NEW):
            signed = sign_manifest(manifest(MODEL, release, Scenario(title=""), NOW)[0], key)
            database.execute(
                "INSERT INTO release VALUES (NULL, ?, ?, ?, ?, ?, ?)",
                (
                    open_manifest(signed, {key.public.keyid: key.public}).digest,
                    MODEL,
                    release,
                    msgspec.json.encode(signed).decode(),
                    json.dumps([key.public.keyid]),
                    NOW,
                ),
            )
        for rollout in rollouts:
            state = engine.rollout(rollout).state
            waves = tuple(replace(wave, rows=devices) for wave in state.waves)
            text = msgspec.json.encode(replace(state, waves=waves, rows_at_end=devices)).decode()
            database.execute("INSERT INTO rollout (id, state) VALUES (?, ?)", (rollout, text))
        database.executemany(
            "INSERT INTO device (row, name, enrolled_at, labels, facts) VALUES (?, ?, ?, ?, ?)",
            (
                (row, f"d{row:07}", NOW, f'{{"site": "s{row % SITES:03}"}}', facts)
                for row in range(devices)
            ),
        )
        models = json.dumps([[MODEL, NEW, "idle"]], separators=(",", ":"))
        database.execute("INSERT INTO model_list VALUES (1, ?)", (models,))
        database.executemany(
            "INSERT INTO device_standing VALUES (?, ?, 9, ?, 1)",
            ((row, NOW, PROTOCOL) for row in range(devices)),
        )
        database.executemany(
            "INSERT INTO outcome (device, id, rollout, release, kind, at, reason, detail,"
            " received_at, attempt) VALUES (?, ?, ?, ?, ?, ?, '', '', ?, 1)",
            (
                (row, f"{one}/1/{kind}", one, NEW, kind.value, NOW + 1, NOW + 1)
                for row in range(devices)
                for one in (rollouts[row % SITES],)
                for kind in (OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED)
            ),
        )
        database.commit()


async def opened_once(folder: Path) -> dict[str, float]:
    """Open a hub, store its snapshot and close it. Returns what the start cost."""
    began, wall = process_time(), perf_counter()
    hub = await Hub.open(HubSettings(data_dir=folder))
    found = {
        "cpu_s": round(process_time() - began, 3),
        "wall_s": round(perf_counter() - wall, 3),
        "mib": round(resident_mib(), 1),
    }
    await hub.snapshots.save()
    await hub.close()
    return found


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def started(folder: Path) -> dict[str, float]:
    """The cost of a start in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--start", str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def restart(devices: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as root:
        empty, folder = Path(root, "empty"), Path(root, "hub")
        nothing = started(empty)
        build(folder, devices)
        first, again = started(folder), started(folder)
        return {
            "first_start_cpu_s": first["cpu_s"],
            "restart_cpu_s": again["cpu_s"],
            "restart_wall_s": again["wall_s"],
            "restart_mib": round(again["mib"] - nothing["mib"], 1),
            "database_mb": round((folder / "hub.sqlite").stat().st_size / 1e6, 1),
        }


def main() -> int:
    reading = argparse.ArgumentParser(description=__doc__)
    reading.add_argument("--full", action="store_true", help="a million devices")
    reading.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    asked = reading.parse_args()
    if asked.start is not None:
        print(json.dumps(asyncio.run(opened_once(asked.start))))
        return 0
    devices = FULL if asked.full else QUICK
    found = {"devices": float(devices), **slope(), **restart(devices)}
    write("hub_history", {**found, "limits": {name: limit for name, (_, limit) in LIMITS.items()}})
    return 0 if show("hub history", found, LIMITS) else 1


if __name__ == "__main__":
    sys.exit(main())
