"""Every verb has a help page, and docs/cli.md contains all of them."""

import re
import shlex
from pathlib import Path

import click
import pytest

from edgefleet.agent.settings import parser as agent_parser
from edgefleet.cli import reference
from edgefleet.cli.command import Command
from edgefleet.cli.config_file import load
from edgefleet.cli.exits import MEANING, Exit
from edgefleet.cli.group import root
from edgefleet.cli.tree import leaves
from support.command_line import CommandLine

ROOT = Path(__file__).parents[2]
PATHS = [path for path, _ in leaves()]
BY_PATH = dict(leaves())
EXAMPLES = [
    (path, example) for path, leaf in leaves() for example in getattr(load(leaf), "examples", ())
]


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_each_verb_has_a_page_with_examples_and_exit_codes(
    path: tuple[str, ...], edgefleet: CommandLine
) -> None:
    command = load(BY_PATH[path])
    assert isinstance(command, Command)
    assert command.examples
    if path[0] == "agent":
        return  # the agent has its own help
    page = edgefleet(*path, "--help")
    assert page.exit == 0
    assert (command.help or "").splitlines()[0] in " ".join(page.out.split())
    assert command.examples[0] in page.out
    for code in command.exits:
        assert f"\n  {int(code)} " in page.out
    assert "EDGEFLEET_" in page.out
    assert "--json" in page.out


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_each_option_says_what_it_is_for(path: tuple[str, ...]) -> None:
    options = [param for param in load(BY_PATH[path]).params if isinstance(param, click.Option)]
    assert [option.name for option in options if not (option.help or "").endswith(".")] == []


@pytest.mark.parametrize(("path", "example"), EXAMPLES, ids=[text for _, text in EXAMPLES])
def test_each_example_is_one_that_its_verb_understands(
    path: tuple[str, ...], example: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *words = shlex.split(example)
    assert program == "edgefleet"
    assert tuple(words[: len(path)]) == path
    parse(path, words[len(path) :], monkeypatch)


def parse(path: tuple[str, ...], words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse the words as the verb does; files need not exist."""
    if path[0] == "agent":
        if "--help" not in words:
            agent_parser().parse_args([path[1], *words])
        return
    command = load(BY_PATH[path])
    for param in command.params:
        if isinstance(param.type, click.Path):
            monkeypatch.setattr(param.type, "exists", False)
    context = click.Context(root, info_name="edgefleet")
    with command.make_context(path[-1], words, parent=context) as made:
        assert made.args == []


def test_the_command_itself_lists_every_noun_and_exit_code(edgefleet: CommandLine) -> None:
    page = edgefleet("--help")
    assert page.exit == 0
    for path in PATHS:
        assert f"\n  {path[0]} " in page.out
    for code, text in MEANING.items():
        assert f"{int(code)}" in page.out
        assert text in page.out


def test_exit_codes_are_what_scripts_rely_on() -> None:
    assert {code.name: int(code) for code in Exit} == {
        "DONE": 0, "FAILED": 1, "USAGE": 2, "REFUSED": 3, "WAITING": 4, "NETWORK": 5, "OURS": 70,
        "INTERRUPTED": 130,
    }  # fmt: skip
    assert set(MEANING) == set(Exit)


def test_the_reference_is_what_the_commands_say() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == reference.render(), (
        "stale: run python -m edgefleet.cli.reference"
    )


def test_a_changed_command_makes_the_reference_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    before = reference.render()
    soak = next(p for p in load(BY_PATH["rollout", "plan"]).params if p.name == "soak")
    monkeypatch.setattr(soak, "show_default", "61s")
    assert reference.render() != before


def documented() -> list[str]:
    """Every command at the start of a line in a page."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    found = []
    for page in pages:
        joined = page.read_text().replace("\\\n", " ")
        for line in joined.splitlines():
            words = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
            if words.startswith("edgefleet ") and "..." not in words and page.name != "cli.md":
                found.append(re.split(r"  #| > | \|\| | &$", words)[0])
    return sorted(set(found))


@pytest.mark.parametrize("line", documented())
def test_each_command_in_the_pages_is_one_that_there_is(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(line)[1:]
    path = tuple(words[:1]) if tuple(words[:1]) in BY_PATH else tuple(words[:2])
    assert path in BY_PATH
    parse(path, words[len(path) :], monkeypatch)
