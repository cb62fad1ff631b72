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
    only releases signed by a key of --trust. `edgefleet agent run --help` lists its options, as
    docs/agent.md does, and works with the device's base install.
    """
    return agent_main(["run", *ctx.args])


@click.command(
    "status",
    cls=_PassThrough,
    hub=False,
    exits=(Exit.FAILED,),
    examples=("edgefleet agent status", "edgefleet agent status --data-dir /var/lib/edgefleet"),
)
@click.pass_context
def status(ctx: click.Context) -> int:
    """Show what the agent of this device does now.

    It lists the hub, each model with its release and what happens to the next one, and the health
    of serving. Exit code 1: no agent answers.
    """
    return agent_main(["status", *ctx.args])


@click.command(
    "health",
    cls=_PassThrough,
    hub=False,
    exits=(Exit.FAILED,),
    examples=("edgefleet agent health", "edgefleet agent health --json"),
)
@click.pass_context
def health(ctx: click.Context) -> int:
    """Check agent and serving, for probes of containers, systemd and greenboot.

    Exit code 0: the agent's loop answers, each confirmed release is served, and the serving process
    does not end repeatedly. Exit code 1: otherwise, with the cause and since when. A hub that does
    not answer is no failure of the device.
    """
    return agent_main(["health", *ctx.args])


@click.command(
    "config",
    cls=_PassThrough,
    hub=False,
    exits=(Exit.FAILED,),
    examples=(
        "edgefleet agent config --hub http://hub:8400 --name cam-1 --profile coral --trust a.pub",
    ),
)
@click.pass_context
def config(ctx: click.Context) -> int:
    """Print the options of `agent run` as a TOML file.

    Save it as /etc/edgefleet/agent.toml: then `edgefleet agent run` needs no options. The claim is
    left out.
    """
    return agent_main(["config", *ctx.args])
