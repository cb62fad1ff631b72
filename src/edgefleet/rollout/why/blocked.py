"""The waits of devices that could begin: one per reason, with the count and the end if known."""

from collections.abc import Callable, Iterator

import numpy as np

from edgefleet.base.texts import are, counted
from edgefleet.protocol.why import WAITS, Wait, WaitCode
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.constraints.blocked import Blocked
from edgefleet.rollout.constraints.fleet_wide import FleetConstraints
from edgefleet.rollout.constraints.window import LABEL
from edgefleet.rollout.fleet.columns import Mask, RowSelection
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.limits import FIRST_NAMES


def blocked_waits(
    active: ActiveRollout,
    fleet: Fleet,
    fleet_wide: FleetConstraints,
    waiting: RowSelection,
    *,
    allowed: int,
    reason: Callable[[], str],
    now: float,
) -> tuple[Wait, ...]:
    """The reasons that block ``waiting``, online devices that have not begun."""
    found: list[Wait] = []
    door = active.reservations.door(active.state, None, now)
    if door is not None:
        found.append(_wait(door, waiting, fleet))
    elif len(waiting):
        found += _shut_by_device(active, waiting, fleet, now)
        if active.in_trial >= allowed or active.overdue.suspect:
            trial = f"{counted(active.in_trial, 'device')} {are(active.in_trial)} in trial"
            text = f"{trial} (limit {allowed}): {reason()}."
            found.append(_wait(Blocked(WaitCode.EXPOSURE, text), waiting, fleet))
        found += _no_place(active, waiting, fleet, fleet_wide, now=now)
    found += _constraints(active, fleet, fleet_wide, waiting)
    misfits = active.scope.ineligible()
    if misfits:
        named = ", ".join(f"{count} {reason}" for reason, count in sorted(misfits.items()))
        found.append(
            Wait(
                code=WaitCode.INELIGIBLE,
                text=f"Selected devices that the release does not fit: {named}.",
                devices=sum(misfits.values()),
            )
        )
    return tuple(found)


def _constraints(
    active: ActiveRollout, fleet: Fleet, fleet_wide: FleetConstraints, waiting: RowSelection
) -> Iterator[Wait]:
    """The constraints of single devices, each with the devices that it blocks.

    These are all eligible devices, or for a constraint that ends by itself those that wait.
    """
    rollout, model = active.state.id, active.state.spec.model
    for one in fleet_wide.per_device:
        if not one.is_active:
            continue
        rows = one.blocked_rows(rollout, model)
        if WAITS[one.code].needs_a_person:
            rows = rows[active.scope.all_eligible(rows)]
        elif len(rows):
            rows = np.intersect1d(rows, waiting.all(), assume_unique=True)
        if len(rows):
            only = int(rows[0]) if len(rows) == 1 else None
            text = one.text(rollout, only, None if only is None else fleet.name(only))
            yield _wait(Blocked(one.code, text), RowSelection.of(rows), fleet)


def _no_place(
    active: ActiveRollout,
    waiting: RowSelection,
    fleet: Fleet,
    fleet_wide: FleetConstraints,
    *,
    now: float,
) -> list[Wait]:
    spec = active.state.spec
    reservations = active.reservations
    found: list[Wait] = []
    until = reservations.starts.wait_until(now)
    if until is not None:
        text = f"The rate limit of {spec.pace.starts_per_minute} starts per minute is reached."
        found.append(_wait(Blocked(WaitCode.PACE, text, until), waiting, fleet))
    flows = fleet_wide.bytes.busy_until(spec.pace, now)
    if flows is not None:
        text = (
            f"The rate limit of {spec.pace.bytes_per_s} bytes per second is reached, "
            "counting the downloads of all rollouts."
        )
        found.append(_wait(Blocked(WaitCode.PACE, text, flows), waiting, fleet))
    full = fleet_wide.budgets.blocked(spec.budgets, waiting.all(), fleet) if spec.budgets else None
    if full is not None and len(blocked := waiting.only(full)):
        named = ", ".join(
            f"{budget.max_in_trial} in trial per {budget.label}" for budget in spec.budgets
        )
        text = f"The budget of these devices is full, counting all rollouts (limit {named})."
        found.append(_wait(Blocked(WaitCode.BUDGET, text), blocked, fleet))
    return found


def _shut_by_device(
    active: ActiveRollout, waiting: RowSelection, fleet: Fleet, now: float
) -> list[Wait]:
    hours = active.reservations.hours
    if not hours.by_device:
        return []
    numbers = fleet.label_ids[waiting.all()]
    table: Mask = np.zeros(fleet.label_set_count, np.bool_)
    opens: list[float] = []
    for number in np.flatnonzero(np.bincount(numbers)).tolist():
        zone = fleet.label_set(number).get(LABEL)
        if not hours.open(zone, now):
            table[number] = True
            at = hours.next_open(zone, now)
            opens += [] if at is None else [at]
    shut = waiting.only(table[numbers])
    if not len(shut):
        return []
    text = "No maintenance window is open in the time zones of these devices."
    return [_wait(Blocked(WaitCode.WINDOW, text, min(opens, default=None)), shut, fleet)]


def _wait(refusal: Blocked, rows: RowSelection, fleet: Fleet) -> Wait:
    return Wait(
        code=refusal.code,
        text=refusal.text,
        since=refusal.since,
        until=refusal.until,
        devices=len(rows),
        first=fleet.names(rows.first(FIRST_NAMES)),
    )
