"""The command class of every verb: common output and hub options, and a help page.

An option's value comes from the command line, else its variable (``EDGEFLEET_ROLLOUT_PLAN_SOAK``),
else the TOML file (``[rollout.plan] soak``), else its default.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from edgefleet.cli.config_file import apply_config
from edgefleet.cli.exits import MEANING, Exit
from edgefleet.cli.invocation import Invocation


class Command(click.Command):
    """A command with examples and exit codes; ``hub`` adds the options of a hub."""

    def __init__(
        self,
        *args: Any,
        examples: Sequence[str] = (),
        exits: Sequence[Exit] = (),
        hub: bool = True,
        **attrs: Any,
    ) -> None:
        super().__init__(*args, **attrs)
        self.examples = tuple(examples)
        common = (Exit.DONE, Exit.USAGE, Exit.OURS, Exit.INTERRUPTED)
        by_hub = (Exit.REFUSED, Exit.NETWORK) if hub else ()
        self.exits = tuple(sorted({*common, *by_hub, *exits}))
        self.params += [*(_hub_options() if hub else ()), *_output_options()]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Settings"):
            formatter.write_text(
                f"Each option may also come from a variable, {variable(ctx)}_<OPTION>, or from "
                f"the table [{'.'.join(command_path(ctx))}] of a TOML file (see --config)."
            )
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{' ' * formatter.current_indent}{example}\n")
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), MEANING[code]) for code in self.exits])


def verb(
    name: str,
    *,
    examples: Sequence[str],
    exits: Sequence[Exit] = (),
    hub: bool = True,
) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a function a verb. Its docstring is the help page, the first line the summary."""
    return click.command(name, cls=Command, examples=examples, exits=exits, hub=hub)


def command_path(ctx: click.Context) -> tuple[str, ...]:
    """``("rollout", "plan")`` for the context of that verb."""
    if ctx.parent is None:
        return ()
    return (*command_path(ctx.parent), ctx.info_name or "")


def variable(ctx: click.Context) -> str:
    """The prefix of this verb's environment variables."""
    return re.sub(r"[^A-Z0-9]", "_", "_".join(("EDGEFLEET", *command_path(ctx))).upper())


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    setattr(ctx.ensure_object(Invocation), param.name or "", value)


def _configure(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    ctx.ensure_object(Invocation).path = ctx.command_path
    apply_config(ctx, value, command_path(ctx))


def _output_options() -> list[click.Option]:
    return [
        click.Option(
            ["--json"],
            is_flag=True,
            envvar="EDGEFLEET_JSON",
            expose_value=False,
            callback=_keep,
            help="Print one JSON object as the last line of standard output.",
        ),
        click.Option(
            ["--config"],
            type=click.Path(path_type=Path, dir_okay=False),
            envvar="EDGEFLEET_CONFIG",
            is_eager=True,
            expose_value=False,
            callback=_configure,
            help="TOML file with settings. Default: the first of ./edgefleet.toml and "
            "~/.config/edgefleet/config.toml.",
        ),
    ]


def _hub_options() -> list[click.Option]:
    return [
        click.Option(
            ["--hub"],
            metavar="URL",
            envvar="EDGEFLEET_HUB",
            expose_value=False,
            callback=_keep,
            help="Address of the hub. Default: the address in the data folder's hub.json.",
        ),
        click.Option(
            ["--token"],
            metavar="TOKEN",
            envvar="EDGEFLEET_TOKEN",
            expose_value=False,
            callback=_keep,
            help="Token of a user, or the operator token. Default: the token in the data folder. "
            "Prefer the variable: other users of this machine can see the command line.",
        ),
        data_dir_option(),
    ]


def data_dir_option() -> click.Option:
    """The option ``--data-dir``: the data folder of a hub on this machine."""
    return click.Option(
        ["--data-dir"],
        type=click.Path(path_type=Path, file_okay=False),
        envvar="EDGEFLEET_DATA_DIR",
        expose_value=False,
        callback=_keep,
        help="The hub's data folder. Default: ~/.local/share/edgefleet/hub.",
    )
