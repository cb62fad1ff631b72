"""``edgefleet agent``: the entry in the list of verbs.

``main`` starts the agent without loading this module. Only in-process callers and the reference
page use it.
"""

import click

from edgefleet.agent.main import main as agent_main
from edgefleet.cli.command import Command
from edgefleet.cli.exits import Exit


class _PassThrough(Command):
    """A verb whose arguments another parser reads."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.args = args
        return args


@click.command(
    "run",
    cls=_PassThrough,
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

    The agent enrols once with a claim of `edgefleet device claim`. Then it checks in at the hub's
    interval, fetches each offered release, proves it on the golden set, and serves it. It accepts
    only releases signed by a key of --trust. `edgefleet agent run --help` lists its options and
    works with the device's base install.
    """
    return agent_main(["run", *ctx.args])
