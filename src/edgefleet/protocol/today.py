"""The releases that the devices of a plan run today, and the effect of the plan on each."""

from collections.abc import Iterable
from typing import Final, Protocol

from edgefleet.base.texts import counted

_LEFT_OUT: Final = {"ahead": "ahead of the hub"}


class RunsToday(Protocol):
    """``RolloutView`` or ``PlanFleet``."""

    @property
    def adds(self) -> int: ...
    @property
    def had_model(self) -> int: ...
    @property
    def replaced(self) -> dict[str, int]: ...
    @property
    def beside(self) -> dict[str, int]: ...
    @property
    def left_out(self) -> dict[str, int]: ...


def today_rows(model: str, release: str, found: RunsToday) -> list[tuple[str, str]]:
    """One row for each thing that the plan does to the releases that run today.

    A model that the devices have none of is added, other releases of it are replaced, and other
    models stay. No plan removes a model.
    """
    same = found.had_model - sum(found.replaced.values())
    rows: list[tuple[str, str]] = []
    if found.adds:
        rows.append(("adds", added(model, found.adds, found.had_model)))
    if found.replaced:
        rows.append(("replaces", _each((f"{model} {one}", n) for one, n in found.replaced.items())))
    if same > 0 and (found.adds or found.replaced):
        rows.append(("unchanged", f"{model} {release} on {counted(same, 'device')}"))
    if found.beside:
        rows.append(("keeps", f"{_each(found.beside.items())} (other models)"))
    rows.append(("removes", "nothing"))
    if found.left_out:
        rows.append(("leaves out", left_out_text(found.left_out)))
    return rows


def left_out_text(left_out: dict[str, int]) -> str:
    """``1 quarantined, 2 ahead of the hub``."""
    return ", ".join(f"{count} {_LEFT_OUT.get(code, code)}" for code, count in left_out.items())


def added(model: str, adds: int, had_model: int) -> str:
    """``model detector to 40 devices (3 already run it)``."""
    return f"model {model} to {counted(adds, 'device')} ({had_model} already run it)"


def _each(counts: Iterable[tuple[str, int]]) -> str:
    """``digits 1 on 80 devices, digits 2 on 1 device``."""
    return ", ".join(f"{name} on {counted(count, 'device')}" for name, count in counts)
