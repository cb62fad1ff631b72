"""Output of a command: the answer on standard output, progress on standard error.

With ``--json`` standard output holds exactly one object, on its last line. Control characters are
replaced, so that a device cannot manipulate the operator's terminal.
"""

import sys
from collections.abc import Iterable, Sequence

import click


class Screen:
    """The operator's terminal, or a pipe."""

    def __init__(self, *, json: bool) -> None:
        self.json = json

    @property
    def live(self) -> bool:
        """True if standard error is a terminal: progress bars may be drawn there."""
        return sys.stderr.isatty() and not self.json

    def answer(self, value: object, lines: Iterable[str]) -> None:
        """The command's answer: ``value`` as one JSON object, or ``lines`` for people."""
        if self.json:
            from edgefleet.protocol.wire import encode

            click.echo(encode(value).decode())
            return
        for line in lines:
            click.echo(clean(line))

    def note(self, text: str) -> None:
        """Print progress on standard error; never part of the answer."""
        click.echo(clean(text), err=True)


def clean(text: str) -> str:
    """``text`` with every unprintable character replaced by a question mark."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Aligned columns, numbers to the right. ``(none)`` if there are no rows."""
    body = [[_cell(cell) for cell in row] for row in rows]
    if not body:
        return ["(none)"]
    numeric = [
        all(_is_number(row[column]) for row in body) and any(row[column] != "-" for row in body)
        for column in range(len(head))
    ]
    widths = [max(len(row[column]) for row in [list(head), *body]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        shown = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        )
        return "  ".join(shown).rstrip()

    return [line([title.upper() for title in head]), *(line(row) for row in body)]


def facts(rows: Iterable[tuple[str, object]]) -> list[str]:
    """Names and values, one per line."""
    pairs = [(name, _cell(value)) for name, value in rows]
    width = max(len(name) for name, _ in pairs)
    return [f"{name.ljust(width)}  {value}" for name, value in pairs]


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else clean(str(value)).replace("\n", " ")


def _is_number(text: str) -> bool:
    return text == "-" or text.replace(".", "", 1).removesuffix(" %").isdigit()
