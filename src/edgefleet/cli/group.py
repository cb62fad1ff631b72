"""The command ``edgefleet``: loads the called verb, runs it, and exits with its code."""

import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import click

from edgefleet import __version__
from edgefleet.cli.config_file import load
from edgefleet.cli.exits import MEANING, Exit
from edgefleet.cli.invocation import Invocation
from edgefleet.cli.tree import ROOT, Leaf, Noun


class Lazy(click.Group):
    """A group that lists its children without importing them."""

    def __init__(self, name: str, children: Mapping[str, Leaf | Noun], text: str) -> None:
        super().__init__(name, help=text)
        self.children = children

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.children)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        match self.children.get(cmd_name):
            case Leaf() as leaf:
                return load(leaf)
            case Noun(line=line, verbs=verbs):
                return Lazy(cmd_name, verbs, line)
            case None:
                return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        import difflib

        name = args[0]
        if name not in self.children and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.children, n=1)
            known = f"Did you mean {near[0]}?" if near else f"Commands: {', '.join(self.children)}."
            raise click.UsageError(f"No such command {name!r}. {known}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, child.line) for name, child in self.children.items()])


class Root(Lazy):
    """The outermost command. Always ends with one of ``exits``."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run the verb and exit the process. ``standalone_mode`` is ignored."""
        del standalone_mode
        given = list(sys.argv[1:] if args is None else args)
        # Read before parsing, so that a parsing error is printed as JSON if requested.
        from_variable = os.environ.get("EDGEFLEET_JSON", "").lower() in {"1", "true", "yes", "on"}
        invocation = Invocation(json=from_variable or "--json" in given)
        call = partial(
            super().main,
            given,
            prog_name or "edgefleet",
            complete_var,
            standalone_mode=False,
            windows_expand_args=windows_expand_args,
            **{**extra, "obj": invocation},
        )
        raise SystemExit(int(_run(call, invocation)))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), text) for code, text in MEANING.items()])
        with formatter.section("First steps"):
            for line in ("edgefleet demo", "edgefleet serve", "edgefleet doctor"):
                formatter.write(f"{' ' * formatter.current_indent}{line}\n")


def _run(call: Callable[[], Any], invocation: Invocation) -> Exit:
    """Run click in non-standalone mode and print its error. Returns the exit code."""
    try:
        code = call()
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        return Exit.INTERRUPTED
    except OSError as error:
        if error.errno != errno.EPIPE:
            return _report(error, invocation)
        # The reader of standard output has closed the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except Exception as error:  # noqa: BLE001 - the outermost frame: every error becomes an exit code
        return _report(error, invocation)
    return Exit(code) if isinstance(code, int) else Exit.DONE


def _report(error: Exception, invocation: Invocation) -> Exit:
    from edgefleet.cli import failure

    return failure.report(error, invocation)


root = Root(
    "edgefleet",
    ROOT,
    "Roll out AI models to a fleet of edge devices: canary waves, A/B slots on each device, "
    "automatic rollback of a bad release.\n\n"
    "A verb finds the hub of this machine; --hub and --token name another one. Every option may "
    "also come from a variable (EDGEFLEET_...) or a TOML file. `edgefleet NOUN VERB --help` shows "
    "the verb's help.",
)
root.context_settings = {
    "auto_envvar_prefix": "EDGEFLEET",
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    "show_default": True,
}
click.version_option(__version__, prog_name="edgefleet", message="%(prog)s %(version)s")(root)
