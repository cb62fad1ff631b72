"""The syntax of the parts of a plan on the command line."""

import re
from datetime import UTC, datetime
from typing import Final

import click

from edgefleet.cli.values import WrongValue
from edgefleet.protocol.rollout import BudgetSpec, WaveSpec, WindowSpec

_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(B|KiB|MiB|GiB|)")
_UNITS_BYTES: Final = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_WAVE: Final = re.compile(r"(?:([0-9]+(?:\.[0-9]+)?)%|([0-9]+))?\s*(.*)")
_WINDOW: Final = re.compile(
    r"(?:([a-z][a-z,-]*)\s+)?([0-9]{1,2}:[0-9]{2})-([0-9]{1,2}:[0-9]{2})(?:\s+(\S+))?"
)
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Size(click.ParamType[int]):
    """Bytes, written as ``4096``, ``64KiB``, ``2MiB``."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        found = _SIZE.fullmatch(str(value).strip())
        if found is None:
            raise WrongValue(f"{value!r} is not a size.", "64KiB or 2MiB", param, ctx)
        return round(float(found[1]) * _UNITS_BYTES[found[2]])


class Wave(click.ParamType[WaveSpec]):
    """``10%``, ``50`` (devices), ``site=lyon``, or a share or a count of a selection."""

    name = "wave"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> WaveSpec:
        found = _WAVE.fullmatch(str(value).strip())
        if found is None or not found[0]:
            raise WrongValue(f"{value!r} is not a wave.", "10%, 50 or site=lyon", param, ctx)
        return WaveSpec(
            percent=float(found[1]) if found[1] else None,
            count=int(found[2]) if found[2] else None,
            selector=found[3],
        )


class Budget(click.ParamType[BudgetSpec]):
    """``site=1``: at most one device in trial at each site."""

    name = "budget"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> BudgetSpec:
        label, _, most = str(value).strip().rpartition("=")
        if not label or not most.isdecimal():
            raise WrongValue(f"{value!r} is not a budget.", "site=1", param, ctx)
        return BudgetSpec(label=label, max_in_trial=int(most))


class Labels(click.ParamType[tuple[str, ...]]):
    """``gpu,site-kind``: label keys."""

    name = "labels"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, (list, tuple)):
            return tuple(map(str, value))
        found = tuple(part.strip() for part in str(value).split(","))
        if not all(found):
            raise WrongValue(f"{value!r} is not a list of labels.", "gpu,site-kind", param, ctx)
        return found


class WindowText(click.ParamType[WindowSpec]):
    """``mon-fri 22:00-06:00 Europe/Paris``; days and time zone are optional."""

    name = "window"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> WindowSpec:
        found = _WINDOW.fullmatch(str(value).strip())
        if found is None:
            raise WrongValue(
                f"{value!r} is not a window.", "'mon-fri 22:00-06:00 Europe/Paris'", param, ctx
            )
        return WindowSpec(
            days=tuple(day for part in (found[1] or "").split(",") for day in _days(part)),
            start=found[2].zfill(5),
            end=found[3].zfill(5),
            timezone=found[4] or "UTC",
        )


class Instant(click.ParamType[float]):
    """``2026-09-22T02:00``, in UTC if it has no offset, or seconds since the epoch."""

    name = "instant"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        text = str(value).strip()
        try:
            return float(text)
        except ValueError:
            pass
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise WrongValue(
                f"{value!r} is not a time.", "2026-09-22T02:00+02:00", param, ctx
            ) from None
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


SIZE: Final = Size()
WAVE: Final = Wave()
BUDGET: Final = Budget()
LABELS: Final = Labels()
WINDOW: Final = WindowText()
INSTANT: Final = Instant()


def _days(part: str) -> tuple[str, ...]:
    """The days of ``mon-fri``. Unknown days are returned unchanged, and the hub refuses them."""
    first, dash, last = part.partition("-")
    if not dash or first not in _DAYS or last not in _DAYS:
        return (part,) if part else ()
    start, end = _DAYS.index(first), _DAYS.index(last)
    return tuple(_DAYS[(start + step) % 7] for step in range((end - start) % 7 + 1))
