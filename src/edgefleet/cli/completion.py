"""TAB: completes verbs, options and live names without loading a verb or click.

The shell's script (``_EDGEFLEET_COMPLETE=bash_source edgefleet`` prints it) calls the program with
the words so far. The options of each verb are in ``completion.json``, which ``cli.reference``
writes; names come from the hub, with a short limit of time. A name that cannot be had is not
offered, and no error is printed: the person is typing.
"""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgefleet.cli.tree import ROOT, Noun

VARIABLE: Final = "_EDGEFLEET_COMPLETE"
TABLE: Final = Path(str(files("edgefleet.cli") / "completion.json"))
NAMES: Final = 100  # offered at once
ANSWER_S: Final = 0.5  # the longest wait for the hub
KINDS: Final[Mapping[str, str]] = {
    "DEVICE": "devices",
    "MODEL": "models",
    "RELEASE": "releases",
    "ROLLOUT": "rollouts",
    "--model": "models",
    "--release": "releases",
    "--runs": "models",
}
"""The kind of names that an argument or option takes, by its name."""


class Offer(NamedTuple):
    """One completion. ``kind`` is ``plain``, or ``file`` or ``dir``: the shell lists these."""

    value: str
    help: str = ""
    kind: str = "plain"


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Print the completions as the shell's script reads them."""
    shell = environ[VARIABLE].partition("_")[0]
    words, incomplete = read_words(shell, environ)
    for offer in complete(words, incomplete, environ):
        sys.stdout.write(_line(shell, offer))
    return 0


def read_words(shell: str, environ: Mapping[str, str]) -> tuple[list[str], str]:
    """The words before the cursor without the program, and the incomplete word."""
    words = _split(environ.get("COMP_WORDS", ""))
    if shell == "fish":
        incomplete = (_split(environ.get("COMP_CWORD", "")) or [""])[0]
        given = words[1:]
        return (
            given[:-1] if incomplete and given and given[-1] == incomplete else given
        ), incomplete
    at = int(environ.get("COMP_CWORD", "0") or 0)
    return words[1:at], words[at] if at < len(words) else ""


def complete(words: list[str], incomplete: str, environ: Mapping[str, str]) -> Iterator[Offer]:
    """The completions of ``incomplete`` after ``words``."""
    path, rest = _verb(words)
    if path is None:
        yield from _children(words, incomplete)
        return
    spec = json.loads(TABLE.read_bytes()).get(" ".join(path))
    if spec is None:
        return
    options: dict[str, Any] = spec["options"]
    before = rest[-1] if rest else ""
    if _takes_value(options, before):
        yield from _values(before, options[before], rest, incomplete, environ)
    elif incomplete.startswith("-"):
        yield from _fitting(incomplete, ((name, one["help"]) for name, one in options.items()))
    else:
        given = _arguments(rest, options)
        wanted: list[str] = spec["arguments"]
        if len(given) < len(wanted):
            name = wanted[len(given)]
            chosen = dict(zip(wanted, given, strict=False))
            yield from _named(name, incomplete, chosen.get("MODEL", ""), rest, environ)


def _verb(words: list[str]) -> tuple[tuple[str, ...] | None, list[str]]:
    """The path of the verb and the words behind it. None if the verb is not complete."""
    if not words or words[0] not in ROOT:
        return None, words
    child = ROOT[words[0]]
    if not isinstance(child, Noun):
        return (words[0],), words[1:]
    if len(words) > 1 and words[1] in child.verbs:
        return (words[0], words[1]), words[2:]
    return None, words


def _children(words: list[str], incomplete: str) -> Iterator[Offer]:
    """The nouns, or the verbs of the noun that is given."""
    children = ROOT
    if words:
        noun = ROOT.get(words[0])
        if not isinstance(noun, Noun) or len(words) > 1:
            return
        yield from _fitting(incomplete, ((name, one.line) for name, one in noun.verbs.items()))
        return
    yield from _fitting(incomplete, ((name, one.line) for name, one in children.items()))


def _fitting(incomplete: str, found: Iterator[tuple[str, str]]) -> Iterator[Offer]:
    return (Offer(name, text) for name, text in found if name.startswith(incomplete))


def _takes_value(options: Mapping[str, Any], word: str) -> bool:
    return word in options and not options[word]["flag"]


def _arguments(rest: list[str], options: Mapping[str, Any]) -> list[str]:
    """The words that are no option and no value of one."""
    found: list[str] = []
    skip = False
    for word in rest:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = _takes_value(options, word)
        else:
            found.append(word)
    return found


def _values(
    name: str,
    option: Mapping[str, Any],
    rest: list[str],
    incomplete: str,
    environ: Mapping[str, str],
) -> Iterator[Offer]:
    if option["choices"]:
        return _fitting(incomplete, ((choice, "") for choice in option["choices"]))
    if option["path"]:
        return iter((Offer(incomplete, kind=option["path"]),))
    return _named(name, incomplete, _after(rest, "--model"), rest, environ)


def _named(
    name: str, incomplete: str, model: str, rest: list[str], environ: Mapping[str, str]
) -> Iterator[Offer]:
    """Names of the hub, or files, as the argument or option needs them."""
    kind = KINDS.get(name)
    if kind is None:
        if name in ("FILE", "FOLDER", "PATH"):
            yield Offer(incomplete, kind="dir" if name == "FOLDER" else "file")
        return
    if kind == "releases" and not model:
        return
    from edgefleet.cli.live_names import live_names

    found = live_names(kind, incomplete, model, rest, environ, most=NAMES, within_s=ANSWER_S)
    yield from (Offer(one) for one in found)


def _after(words: list[str], name: str) -> str:
    """The word after ``name``. Empty if there is none."""
    places = [place for place, word in enumerate(words[:-1]) if word == name]
    return words[places[-1] + 1] if places else ""


def _split(text: str) -> list[str]:
    """The words of a line, of which the last may have an open quotation mark."""
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    found: list[str] = []
    try:
        found.extend(lexer)
    except ValueError:
        found.append(lexer.token)
    return found


def _line(shell: str, offer: Offer) -> str:
    if shell == "zsh":
        return f"{offer.kind}\n{offer.value}\n{offer.help or '_'}\n"
    if shell == "fish":
        text = f"\t{offer.help}" if offer.help else ""
        return f"{offer.kind},{offer.value}{text}\n"
    return f"{offer.kind},{offer.value}\n"
