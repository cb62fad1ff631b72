"""``python -m edgefleet.sim.load``: simulated devices against a real hub.

Runs until SIGTERM or SIGINT. Prints one ``FleetReport`` a second as a JSON line on standard output.
The last one has the kind ``summary``.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Literal

from edgefleet.agent.trust import Trust
from edgefleet.base.clock import SystemClock
from edgefleet.base.errors import EdgefleetError, OperatorError
from edgefleet.base.texts import counted
from edgefleet.protocol.wire import encode
from edgefleet.security.signing import PublicKey
from edgefleet.sim.limits import REPORT_EVERY_S
from edgefleet.sim.load.device import Surroundings
from edgefleet.sim.load.disk import Shelf
from edgefleet.sim.load.event_loop import EventLoop
from edgefleet.sim.load.fleet import SimulatedFleet
from edgefleet.sim.load.http_hub import HttpHub
from edgefleet.sim.load.measure_release import FieldData, MeasuringLaboratory, read_field
from edgefleet.sim.load.population import population
from edgefleet.sim.load.realtime import RealTime
from edgefleet.sim.load.worker_threads import Workers


def main(argv: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code."""
    given = _parser().parse_args(argv)
    try:
        _run(given)
    except EdgefleetError as error:
        sys.stderr.write(f"edgefleet sim: {error}\n")
        return 1
    except BrokenPipeError:  # the reader of the reports has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edgefleet.sim.load", description=__doc__)
    add = parser.add_argument
    add("--hub", required=True, metavar="URL", help="address of the hub")
    add("--claims", required=True, type=Path, metavar="FILE", help="file with one claim per line")
    add(
        "--trust",
        required=True,
        type=Path,
        metavar="FILE",
        help="file with one publisher key per line",
    )
    add(
        "--field",
        required=True,
        action="append",
        metavar="MODEL=FILE",
        help=".npz with field data of a model: inputs and labels; once for each model",
    )
    add("--devices", type=int, default=1000, metavar="N", help="number of devices (default: 1000)")
    add("--seed", type=int, default=7, metavar="N", help="random seed (default: 7)")
    add(
        "--interval",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="check-in interval of the hub (default: 2)",
    )
    add("--prefix", default="sim", metavar="NAME", help="prefix of the device names")
    return parser


def _run(given: argparse.Namespace) -> None:
    claims = _claims(given.claims, given.devices)
    trusted = {key.keyid: key for key in map(PublicKey.from_text, Trust.load(given.trust).keys)}
    fields = _fields(given.field)
    clock = SystemClock()
    world = EventLoop(clock.now())
    pacer = RealTime(world, clock)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: pacer.stop())
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgefleet-sim-"))
        hub = HttpHub(given.hub, pacer.post)
        stack.callback(hub.close)
        bench = Workers(1, "measure", pacer.post)
        stack.callback(bench.close)
        fleet = SimulatedFleet(
            Surroundings(
                world=world,
                hub=hub,
                shelf=Shelf(),
                laboratory=MeasuringLaboratory(fields, Path(folder), bench),
                trusted=trusted,
                seed=given.seed,
            )
        )
        people = population(
            given.devices,
            seed=given.seed,
            start=world.now(),
            interval_s=given.interval,
            prefix=given.prefix,
        )
        for facts, claim in zip(people, claims, strict=True):
            fleet.enrol(facts, claim)
        _report_every_second(world, fleet)
        pacer.run()
        _print_report(fleet, "summary")


def _fields(given: list[str]) -> dict[str, FieldData]:
    """The field data by model. Raises OperatorError ``setting_invalid``."""
    fields: dict[str, FieldData] = {}
    for one in given:
        model, equals, path = one.partition("=")
        if not (model and equals and path):
            message = f"--field is MODEL=FILE, and not {one!r}."
            raise OperatorError("setting_invalid", message, field="field")
        fields[model] = read_field(Path(path))
    return fields


def _claims(path: Path, count: int) -> list[str]:
    try:
        claims = path.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError("setting_invalid", f"{path}: {error}.", field="claims") from error
    if len(claims) < count:
        message = f"{path} has {counted(len(claims), 'claim')} for {counted(count, 'device')}."
        raise OperatorError("setting_invalid", message, field="claims")
    return claims[:count]


def _report_every_second(world: EventLoop, fleet: SimulatedFleet) -> None:
    _print_report(fleet, "progress")
    world.after(REPORT_EVERY_S, partial(_report_every_second, world, fleet))


def _print_report(fleet: SimulatedFleet, kind: Literal["progress", "summary"]) -> None:
    times = os.times()
    report = fleet.report(kind, cpu_s=round(times.user + times.system, 2))
    sys.stdout.write(f"{encode(report).decode()}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
