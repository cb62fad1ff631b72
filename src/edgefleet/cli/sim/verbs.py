"""``edgefleet sim run``, ``swarm``, ``replay`` and ``list``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgefleet.base.errors import OperatorError
from edgefleet.cli.command import verb
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import table
from edgefleet.protocol.wire import Wire

if TYPE_CHECKING:
    from edgefleet.sim.virtual.result import Result


_DEVICES = click.option(
    "--devices", type=click.IntRange(1, 2_000_000), default=2000, help="How many devices."
)


class ScenarioLine(Wire, frozen=True, kw_only=True):
    """One scenario in the list."""

    name: str
    title: str
    expect: tuple[str, ...]


class ScenarioList(Wire, frozen=True, kw_only=True):
    scenarios: tuple[ScenarioLine, ...]


@verb(
    "run",
    examples=(
        "edgefleet sim run --scenario good",
        "edgefleet sim run --scenario bad --devices 100000 --seed 7 --json",
        "edgefleet sim run --scenario my-fleet.toml --draw run.svg",
        "edgefleet sim run --scenario crashing --gate our_gates.py:no_second_crash",
    ),
    exits=(Exit.FAILED,),
    hub=False,
)
@click.option(
    "--scenario", default="good", help="Name of a scenario (see sim list), or a TOML file."
)
@_DEVICES
@click.option("--seed", type=click.IntRange(0), default=7, help="Random seed.")
@click.option(
    "--gate",
    metavar="MODULE:NAME",
    help="Custom gate, package.module:name or path/to/file.py:name (docs/own-gate.md).",
)
@click.option(
    "--draw",
    "picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a chart of each rollout to this SVG file.",
)
@pass_invocation
def run(
    invocation: Invocation,
    /,
    *,
    scenario: str,
    devices: int,
    seed: int,
    gate: str | None,
    picture: Path | None,
) -> Exit:
    """Simulate the rollouts of a scenario on a virtual fleet.

    The engine and the agents are real; clock, network, disks and power are virtual. All invariants
    are checked during the run. The same seed gives the same trace digest.
    """
    from edgefleet.cli.custom_gate import load_gate
    from edgefleet.rollout.evidence.gate import judge
    from edgefleet.sim.virtual import scenario as scenarios
    from edgefleet.sim.virtual.run import Run

    played = Run(
        scenarios.load(scenario),
        name=scenario,
        devices=devices,
        seed=seed,
        gate=judge if gate is None else load_gate(gate),
        progress=invocation.screen.note,
    )
    return _show(invocation, played.play(), picture)


@verb(
    "swarm",
    examples=("edgefleet sim swarm --seeds 20", "edgefleet sim swarm --seeds 500 --devices 2000"),
    exits=(Exit.FAILED,),
    hub=False,
)
@click.option("--seeds", type=click.IntRange(1, 1_000_000), default=20, help="How many runs.")
@click.option("--first", type=click.IntRange(0), default=1, help="The first seed.")
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=os.cpu_count() or 1,
    show_default="number of cores",
    help="Number of parallel processes.",
)
@_DEVICES
@pass_invocation
def swarm(invocation: Invocation, seeds: int, first: int, processes: int, devices: int) -> Exit:
    """Simulate many random mixtures of releases, plans and faults.

    Exits with 1 if an invariant was violated, or if a run did not end after all faults were healed.
    Prints each failing seed with the command that replays it.
    """
    from edgefleet.cli.sim.report import swarm_lines
    from edgefleet.sim.virtual.swarm import swarm as play_swarm

    result = play_swarm(
        range(first, first + seeds),
        devices,
        processes=processes,
        progress=invocation.screen.note,
    )
    invocation.screen.answer(result, swarm_lines(result))
    return Exit.FAILED if result.failing else Exit.DONE


@verb(
    "replay",
    examples=("edgefleet sim replay 217", "edgefleet sim replay 217 --devices 300 --json"),
    exits=(Exit.FAILED,),
    hub=False,
)
@click.argument("seed", type=click.IntRange(0))
@_DEVICES
@click.option(
    "--draw",
    "picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a chart of each rollout to this SVG file.",
)
@pass_invocation
def replay(invocation: Invocation, seed: int, devices: int, picture: Path | None) -> Exit:
    """Run one seed of a swarm again and show the end of its trace.

    Prints the scenario of the seed, the last events, and the command.
    """
    import msgspec

    from edgefleet.sim.virtual.run import START, Run
    from edgefleet.sim.virtual.swarm import mixture

    scenario = mixture(seed)
    played = Run(scenario, name=f"mixture {seed}", devices=devices, seed=seed)
    result = played.play()
    note = invocation.screen.note
    note(msgspec.json.format(msgspec.json.encode(scenario)).decode())
    for at, word, about, text in played.trace.tail:
        name = played.facts.name(about) if isinstance(about, int) else about
        note(f"{at - START:10.2f}  {word:<12} {name}  {text}")
    note(shlex.join(("edgefleet", "sim", "replay", str(seed), "--devices", str(devices))))
    return _show(invocation, result, picture)


@verb("list", examples=("edgefleet sim list",), hub=False)
@pass_invocation
def list_(invocation: Invocation) -> None:
    """List the scenarios that come with edgefleet.

    Each scenario is a short TOML file; copy one to write your own.
    """
    from edgefleet.sim.virtual import scenario as scenarios

    found = tuple(
        ScenarioLine(name=name, title=scenario.title, expect=scenario.expect)
        for name in scenarios.names()
        for scenario in (scenarios.load(name),)
    )
    rows = [(one.name, one.title, ", ".join(one.expect)) for one in found]
    invocation.screen.answer(
        ScenarioList(scenarios=found), table(("scenario", "title", "ends"), rows)
    )


def _show(invocation: Invocation, result: Result, picture: Path | None) -> Exit:
    from edgefleet.cli.sim.report import run_lines
    from edgefleet.cli.sim.svg_chart import draw

    if picture is not None:
        try:
            picture.write_text(draw(result))
        except OSError as error:
            raise OperatorError("setting_invalid", f"{picture}: {error}.", field="draw") from error
    invocation.screen.answer(result, run_lines(result))
    return Exit.FAILED if result.violations or not result.finished else Exit.DONE
