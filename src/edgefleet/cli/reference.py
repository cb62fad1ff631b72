"""The page docs/cli.md and the table of completions, written from the commands.

``python -m edgefleet.cli.reference`` writes both, with ``--check`` it compares.
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from edgefleet.cli.command import Command
from edgefleet.cli.completion import TABLE
from edgefleet.cli.config_file import is_shared, load
from edgefleet.cli.exits import MEANING
from edgefleet.cli.group import root
from edgefleet.cli.tree import ROOT, Leaf, Noun, leaves

PAGE: Final = Path("docs/cli.md")
_OWN_PAGE: Final = frozenset({("agent", one) for one in ("run", "status", "health", "config")})
"""Verbs of another parser: their options are in their own help, and in docs/agent.md."""


def render() -> str:
    """The whole page."""
    return "\n".join(_page()).strip() + "\n"


def completions() -> str:
    """The options and arguments of every verb, for ``cli.completion``."""
    lines = (
        f"{json.dumps(' '.join(path))}:{json.dumps(_words(load(leaf)), separators=(',', ':'))}"
        for path, leaf in leaves()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _words(command: click.Command) -> dict[str, Any]:
    context = click.Context(command)
    options: dict[str, Any] = {}
    for one in command.params:
        if not isinstance(one, click.Option):
            continue
        text = re.split(r"(?<=[.:])\s", one.help or "")[0]
        choices = [str(each) for each in getattr(one.type, "choices", ())]
        path = ""
        if isinstance(one.type, click.Path):
            path = "file" if one.type.file_okay else "dir"
        for name in one.opts:
            options[name] = {
                "help": text,
                "flag": bool(one.is_flag),
                "choices": choices,
                "path": path,
            }
    arguments = [
        (one.metavar or one.make_metavar(context)).strip("[].")
        for one in command.params
        if isinstance(one, click.Argument)
    ]
    return {"arguments": arguments, "options": options}


def _page() -> Iterator[str]:
    yield "# The command line\n"
    yield (
        "Generated from the commands by `python -m edgefleet.cli.reference`; a test compares.\n\n"
        "`edgefleet NOUN VERB`. With `--json` a command prints one JSON object as the last line of "
        "standard output. An error is a Problem object (`code`, `message`, `field`, `hint`). "
        "Progress goes to standard error.\n"
    )
    yield from _settings()
    yield "## Exit codes\n\n| code | meaning |\n|---|---|"
    yield from (f"| {int(code)} | {text} |" for code, text in MEANING.items())
    yield "\n## Options of every verb\n"
    yield "Verbs that use a hub also have the hub options.\n"
    shared = load(_leaf("rollout", "list"))
    yield from _options(shared, ("rollout", "list"), shared=True)
    for name, child in ROOT.items():
        match child:
            case Leaf():
                yield from _verb((name,), child)
            case Noun(line=line, verbs=verbs):
                yield f"\n## edgefleet {name}\n\n{line}"
                for verb, leaf in verbs.items():
                    yield from _verb((name, verb), leaf)


def _settings() -> Iterator[str]:
    yield (
        "## Settings\n\n"
        "An option's value comes from the command line, else its variable "
        "(`EDGEFLEET_ROLLOUT_PLAN_SOAK`; the options of every verb also have the short names "
        "below), else the TOML file, else its default. The file is the first of `--config`, "
        "`$EDGEFLEET_CONFIG`, `./edgefleet.toml` and `~/.config/edgefleet/config.toml`. An unknown "
        "key is an error.\n\n"
        "```toml\n"
        'hub = "http://hub.example:8400"   # for every verb\n\n'
        "[rollout.plan]                    # for one\n"
        "waves = [1, 10, 100]\n"
        'soak = "10m"\n'
        "```\n\n"
        "Durations are written `90s`, `5m`, `2h`, `1d`, `500ms` or as seconds; shares as `0.05` or "
        "`5%`.\n\n"
        "Completion with TAB, of verbs, options and the names of devices, models, releases and "
        'rollouts: `eval "$(_EDGEFLEET_COMPLETE=bash_source edgefleet)"` (or `zsh_source`, '
        "`fish_source`).\n"
    )


def _leaf(noun: str, verb: str) -> Leaf:
    found = ROOT[noun]
    if not isinstance(found, Noun):
        msg = f"{noun} is not a noun"
        raise TypeError(msg)
    return found.verbs[verb]


def _verb(path: tuple[str, ...], leaf: Leaf) -> Iterator[str]:
    command = load(leaf)
    name = " ".join(("edgefleet", *path))
    yield f"\n{'##' if len(path) == 1 else '###'} {name}\n"
    yield f"    {_usage(command, path)}\n"
    yield inspect.cleandoc(command.help or "").replace("\f", "")
    if path not in _OWN_PAGE:
        options = list(_options(command, path, shared=False))
        yield "\n" + "\n".join(options) if len(options) > 1 else "\nThis verb has no other options."
    if isinstance(command, Command):
        yield "\n```sh\n" + "\n".join(command.examples) + "\n```\n"
        yield f"Exit codes: {', '.join(str(int(code)) for code in command.exits)}."


def _usage(command: click.Command, path: tuple[str, ...]) -> str:
    context = click.Context(root, info_name="edgefleet")
    for name in path:
        context = click.Context(command, info_name=name, parent=context)
    return " ".join(("edgefleet", *path, *command.collect_usage_pieces(context)))


def _options(command: click.Command, path: tuple[str, ...], *, shared: bool) -> Iterator[str]:
    """A table of the verb's own options, or of the shared ones."""
    yield "| option | variable | default | |\n|---|---|---|---|"
    context = click.Context(command)
    for option in command.params:
        if not isinstance(option, click.Option) or is_shared(option) is not shared:
            continue
        metavar = "" if option.is_flag else f" {option.make_metavar(context)}"
        variable = "_".join(("EDGEFLEET", *path, option.name or "")).upper()
        if option.envvar:
            variable = str(option.envvar)
        default = option.get_default(context)
        plain = isinstance(default, (str, int, float)) and not isinstance(default, bool)
        if isinstance(option.show_default, str):
            default, plain = option.show_default, True
        shown = f"`{default}`" if plain and default != "" else ""
        text = f"{option.help or ''}{' Required.' if option.required else ''}"
        cells = (f"`{option.opts[-1]}{metavar}`".replace("|", "\\|"), f"`{variable}`", shown, text)
        yield f"| {' | '.join(cells)} |"


def main() -> int:
    """Write page and completions, or with ``--check`` report whether one of them is stale."""
    is_stale = False
    for file, text in ((PAGE, render()), (TABLE, completions())):
        if "--check" not in sys.argv:
            file.write_text(text)
            continue
        stale = not file.exists() or file.read_text() != text
        sys.stdout.write(f"{file} is {'stale' if stale else 'current'}\n")
        is_stale |= stale
    return int(is_stale)


if __name__ == "__main__":
    sys.exit(main())
