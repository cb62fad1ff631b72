"""SVG as text: elements with escaped attributes, and positions that need no layout.

Widths are in percent of the picture and heights in pixels, so a picture fits every screen without
stretching its text.
"""

from collections.abc import Sequence

from markupsafe import Markup, escape

Value = str | float


def element(tag: str, *inside: Markup | str, **attributes: Value) -> Markup:
    """One element. ``class_`` means ``class``, underscores mean dashes; text is escaped."""
    written = Markup("").join(
        Markup(' {}="{}"').format(_attribute(name), _text(value))
        for name, value in attributes.items()
    )
    body = Markup("").join(escape(part) for part in inside)
    return Markup("<{0}{1}>{2}</{0}>").format(tag, written, body)


def percent(share: float) -> str:
    """A share of the picture's width, 0 to 1, as a length."""
    return f"{_number(share * 100)}%"


def picture(label: str, height: int, inside: Sequence[Markup], class_: str) -> Markup:
    """A whole picture, ``height`` pixels high; ``label`` is its text for screen readers."""
    return element(
        "svg",
        *inside,
        class_=class_,
        role="img",
        aria_label=label,
        width="100%",
        height=height,
        xmlns="http://www.w3.org/2000/svg",
    )


def titled(text: str) -> Markup:
    """The tooltip of an element."""
    return element("title", text)


def polygon_path(points: Sequence[tuple[float, float]]) -> str:
    """The closed outline through ``points``."""
    return "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points) + "Z"


def _attribute(name: str) -> str:
    if name in {"viewBox", "preserveAspectRatio"}:
        return name
    return name.rstrip("_").replace("_", "-")


def _text(value: Value) -> str:
    return value if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))
