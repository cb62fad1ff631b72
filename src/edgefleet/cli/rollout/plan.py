"""``edgefleet rollout plan``: a release, a fleet, waves, and the gate behind each of them."""

import click

from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.reach import reach
from edgefleet.cli.rollout.picture import rollout_lines
from edgefleet.cli.rollout.watch import follow
from edgefleet.cli.values import DURATION, RATE, WAVES
from edgefleet.cli.verb import verb
from edgefleet.protocol.rollout import Command, GateSpec, RolloutSpec, Verb, WaveSpec

_GATE = GateSpec()


@verb(
    "plan",
    examples=(
        "edgefleet rollout plan --model digits --release 2",
        "edgefleet rollout plan --model digits --release 2 --start --watch",
        "edgefleet rollout plan --model digits --release 3 --waves 5,25,100 --soak 30m",
        "edgefleet rollout plan --model digits --release 3 --selector 'site=lyon' --json",
    ),
    exits=(Exit.FAILED,),
)
@click.option("--model", required=True, help="The model.")
@click.option("--release", required=True, help="The release that devices shall run.")
@click.option("--selector", default="", help="Kubernetes label selector; empty selects all.")
@click.option(
    "--waves",
    type=WAVES,
    default="1,10,100",
    metavar="PERCENTS",
    help="Percent of the fleet in each wave; each holds the ones before it.",
)
@click.option(
    "--max-error-rate",
    type=RATE,
    default=_GATE.max_error_rate,
    metavar="SHARE",
    help="failed / (failed + healthy) above which everything is taken back.",
)
@click.option(
    "--min-sample",
    type=click.IntRange(1),
    default=_GATE.min_sample,
    metavar="DEVICES",
    help="Finished devices before any verdict.",
)
@click.option(
    "--soak",
    type=DURATION,
    default="60s",
    metavar="DURATION",
    help="How long a passing wave must stand before the next opens.",
)
@click.option(
    "--confirm-after",
    type=DURATION,
    default="60s",
    metavar="DURATION",
    help="Healthy time on the device before it confirms.",
)
@click.option(
    "--silence",
    type=DURATION,
    default="5m",
    metavar="DURATION",
    help="A device silent for this long after activating has failed.",
)
@click.option(
    "--patience",
    type=DURATION,
    default="1h",
    metavar="DURATION",
    help="How long stragglers are waited for.",
)
@click.option(
    "--max-confidence-drop",
    type=RATE,
    default=_GATE.max_confidence_drop,
    metavar="SHARE",
    help="Mean confidence of the canary may lie this far below the control's.",
)
@click.option(
    "--min-requests",
    type=click.IntRange(1),
    default=_GATE.min_requests,
    metavar="REQUESTS",
    help="Inference requests on each side before confidence is judged.",
)
@click.option("--start", is_flag=True, help="Start it at once.")
@click.option("--watch", is_flag=True, help="Start it and follow it to its end.")
@pass_invocation
def plan(
    invocation: Invocation,
    /,
    *,
    model: str,
    release: str,
    selector: str,
    waves: tuple[WaveSpec, ...],
    start: bool,
    watch: bool,
    **gate: float,
) -> int:
    """Plan a rollout in waves.

    The hub checks the plan against the fleet (a variant for each profile, no other rollout on the
    same devices, a release that was not taken back before) and keeps it. Nothing reaches a device
    before `edgefleet rollout start`, or --start.

    Behind each wave stands a gate. It passes when enough devices are healthy for the soak time,
    and takes the release back from every device when the error rate is above the limit.
    """
    spec = RolloutSpec(
        model=model, release=release, selector=selector, waves=waves, gate=_gate(gate)
    )
    with reach(invocation) as hub:
        view = hub.plan(spec)
        if start or watch:
            view = hub.command(view.id, Verb.START, Command(generation=view.generation))
        if watch:
            return follow(invocation, hub, view.id)
    invocation.screen.answer(view, rollout_lines(view))
    if not (start or invocation.json):
        invocation.screen.note(f"Next: edgefleet rollout start {view.id} --watch")
    return Exit.DONE


def _gate(said: dict[str, float]) -> GateSpec:
    return GateSpec(
        max_error_rate=said["max_error_rate"],
        min_sample=int(said["min_sample"]),
        soak_s=said["soak"],
        confirm_after_s=said["confirm_after"],
        silence_s=said["silence"],
        patience_s=said["patience"],
        max_confidence_drop=said["max_confidence_drop"],
        min_requests=int(said["min_requests"]),
    )
