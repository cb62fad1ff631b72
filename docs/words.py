"""The lint for plain words: how a sentence may start, and which verbs no API name may contain.

``python docs/words.py`` prints each place that breaks a rule and ends with 1 if there is one. Two
rules are checked, because a program can decide them; the rest of plain writing is for the reviewer.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

SENTENCE_STARTS: Final = {
    "who": "name the subject: a device, an operator, a client",
    "whoever": "name the subject",
    "whose": "name the owner",
    "what": "name the thing, unless the sentence is a question",
    "whatever": "name the thing",
    "that": "repeat the noun that it refers to",
    "nobody": "say which devices or people, and that there is none",
    "somebody": "say which person or process",
}
"""Words that must not begin a sentence, each with what to write in its place."""

API_VERBS: Final = {
    "said": "the noun: check_in, report, answer, output",
    "say": "report, log or render",
    "tell": "report, notify or send",
    "told": "sent, notified or reported",
    "stands": "status, standing or is",
    "leave": "admission, or remove",
    "held": "installed, reserved, excluded or quarantined",
    "hold": "reserve, pause or keep",
    "take": "acquire, consume or reserve",
    "look": "evaluate, observe, show or read",
    "let": "allow",
    "hear": "receive or record",
    "heard": "received or last_seen",
    "seen": "observed, except in last_seen",
}
"""Verbs that no function, parameter or field may be named by: each had several meanings here."""

FIELD_TERMS: Final = frozenset({"last_seen"})
"""Names that hold such a verb and are standard terms."""

_SENTENCE = re.compile(
    r"(?:^|(?<=[.!?:])\s+|\n\s*\n\s*|^\s*[-*]\s+|\|\s*)([A-Z][a-z]+)\b([^.!?]*[.!?]?)", re.MULTILINE
)
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Finding:
    """One place that breaks a rule."""

    file: str
    line: int
    word: str
    advice: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.word}: {self.advice}"


def in_prose(text: str, *, file: str, line: int = 1) -> Iterator[Finding]:
    """Sentences of ``text`` that begin with a banned word. ``line`` is where the text begins."""
    for found in _SENTENCE.finditer(text):
        word = found[1].lower()
        if word in SENTENCE_STARTS and not found[2].endswith("?"):
            at = line + text.count("\n", 0, found.start(1))
            yield Finding(file, at, found[1], SENTENCE_STARTS[word])


def in_python(source: str, *, file: str, names: bool) -> Iterator[Finding]:
    """Docstrings, comments and messages; with ``names`` also what functions and fields are called."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("# ")
            yield from in_prose(text[:1].upper() + text[1:], file=file, line=token.start[0])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield from in_prose(node.value, file=file, line=node.lineno)
        if names:
            yield from _in_names(node, file)


def _in_names(node: ast.AST, file: str) -> Iterator[Finding]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            name = node.name
        case ast.arg():
            name = node.arg
        case ast.AnnAssign(target=ast.Name() as target):
            name = target.id
        case ast.AnnAssign(target=ast.Attribute() as target):
            name = target.attr
        case _:
            return
    if name in FIELD_TERMS:
        return
    for word in re.findall(r"[A-Z]?[a-z]+", name):
        if advice := API_VERBS.get(word.lower()):
            yield Finding(file, node.lineno, name, advice)


def findings(root: Path) -> list[Finding]:
    """All findings below ``root``, in the order of files and lines."""
    found: list[Finding] = []
    for path in sorted((root / "src").rglob("*.py")):
        found += in_python(path.read_text(), file=str(path.relative_to(root)), names=True)
    for folder in ("tests", "bench", "docs"):
        for path in sorted((root / folder).rglob("*.py")):
            found += in_python(path.read_text(), file=str(path.relative_to(root)), names=False)
    pages = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    pages += (root / "src").rglob("*.html")
    for path in sorted(pages):
        text = _FENCE.sub(lambda block: "\n" * block[0].count("\n"), path.read_text())
        found += in_prose(text, file=str(path.relative_to(root)))
    return found


def main() -> int:
    """Print the findings. Returns the exit code."""
    found = findings(ROOT)
    for one in found:
        print(one)
    if found:
        print(f"{len(found)} places: write the word that is advised", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
