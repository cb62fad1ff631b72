"""SVG and HTML as text, with the standard library only.

As in ``web.svg``, widths are in percent of the picture and heights in pixels, so that a picture
fits every screen without stretching its text. ``web.svg`` needs the packages of the hub, which a
publisher's machine may not have.
"""

from collections.abc import Sequence
from html import escape

Value = str | float


class Markup(str):
    """Text that is HTML already. Other text is escaped where it is put in."""

    __slots__ = ()


def element(tag: str, *inside: str, **attributes: Value) -> Markup:
    """One element. ``class_`` means ``class``, underscores mean dashes; text is escaped."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for name, value in attributes.items()
    )
    body = "".join(part if isinstance(part, Markup) else escape(part) for part in inside)
    return Markup(f"<{tag}{written}>{body}</{tag}>")


def joined(parts: Sequence[Markup]) -> Markup:
    """The elements one after the other."""
    return Markup("".join(parts))


def picture(label: str, height: int, inside: Sequence[Markup]) -> Markup:
    """A whole picture, ``height`` pixels high; ``label`` is its text for screen readers."""
    return element("svg", *inside, role="img", aria_label=label, width="100%", height=height)


def percent(share: float) -> str:
    """A share of the picture's width, 0 to 1, as a length."""
    return f"{_text(share * 100)}%"


def _text(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
