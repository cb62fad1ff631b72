"""``edgefleet agent``: listed here, run by the agent itself, which needs none of the rest.

``main`` hands over before this module is read; it is reached where the program is called from
inside another one, and by the reference.
"""

import click

from edgefleet.agent.main import main as agent_main
from edgefleet.cli.command import Command
from edgefleet.cli.exits import Exit


class _HandedOver(Command):
    """A verb whose words are read by another parser."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.args = args
        return args


@click.command(
    "run",
    cls=_HandedOver,
    hub=False,
    exits=(Exit.FAILED,),
    examples=(
        "edgefleet agent run --help",
        "edgefleet agent run --config /etc/edgefleet/agent.toml",
    ),
)
@click.pass_context
def run(ctx: click.Context) -> int:
    """Run the agent on a device.

    Enrols once with a claim of `edgefleet device claim`, then checks in at the hub's interval,
    fetches what it is offered, proves it on the golden set, and serves it. It accepts releases
    signed by the keys of --trust and no others. Its options have a page of their own:
    `edgefleet agent run --help`, which works with the device's base install.
    """
    return agent_main(["run", *ctx.args])
