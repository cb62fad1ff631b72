"""Parsing and printing of values on the command line."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from edgefleet.protocol.rollout import WaveSpec

_UNITS_S: Final[Mapping[str, float]] = {
    "": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0,
}  # fmt: skip
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|)")


class WrongValue(click.BadParameter):
    """A value that a type refuses. ``example`` is a list of valid values, as text."""

    def __init__(
        self,
        text: str,
        example: str,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> None:
        super().__init__(text, ctx, param)
        self.example = example


class Duration(click.ParamType[float]):
    """Seconds, written as ``90s``, ``5m``, ``2h``, ``1d``, ``500ms`` or a plain number."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found = _DURATION.fullmatch(str(value).strip())
        if found is None:
            raise WrongValue(f"{value!r} is not a duration.", "90s, 5m or 2h", param, ctx)
        return float(found[1]) * _UNITS_S[found[2]]


class Rate(click.ParamType[float]):
    """A share, written as ``0.05`` or ``5%``."""

    name = "rate"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = math.nan
        if not 0 <= share <= 1:
            raise WrongValue(f"{value!r} is not a share.", "0.05 or 5%", param, ctx)
        return share


class Waves(click.ParamType["tuple[WaveSpec, ...]"]):
    """Percents separated by commas, ``1,10,100``, or a TOML list."""

    name = "waves"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> "tuple[WaveSpec, ...]":
        from edgefleet.protocol.rollout import WaveSpec

        items = list(map(str, value)) if isinstance(value, (list, tuple)) else str(value).split(",")
        try:
            percents = [float(item.strip().removesuffix("%")) for item in items]
        except ValueError:
            percents = [math.nan]
        if not all(map(math.isfinite, percents)):
            raise WrongValue(f"{value!r} is not a list of percents.", "1,10,100", param, ctx)
        return tuple(WaveSpec(percent=percent) for percent in percents)


class Label(click.ParamType[tuple[str, str]]):
    """``key=value``."""

    name = "label"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        key, equals, text = str(value).partition("=")
        if not key or not equals:
            raise WrongValue(f"{value!r} is not a label.", "site=lyon", param, ctx)
        return key, text


DURATION: Final = Duration()
RATE: Final = Rate()
WAVES: Final = Waves()
LABEL: Final = Label()
FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)


def duration(seconds: float) -> str:
    """``95`` as ``1m35s``: the two largest units."""
    left = round(seconds)
    parts: list[str] = []
    for unit, size_s in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size_s)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])


def size(size_bytes: float) -> str:
    """``1536`` as ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} GiB"


def percent(share: float) -> str:
    """``0.05`` as ``5 %``."""
    return f"{share * 100:.4g} %"


def age(then: float | None, now: float) -> str | None:
    """The time since ``then`` as text. None if ``then`` is None."""
    return None if then is None else f"{duration(max(now - then, 0))} ago"
