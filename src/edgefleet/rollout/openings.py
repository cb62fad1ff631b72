"""The cut that a wave gets when it opens or grows: exact among the devices that are online.

A wave opens whole. If its evidence is undecided at its end, the next wave opens *by handfuls*: a
few devices at a time, until the evidence decides. If devices of a wave go offline, so that too few
are left for a verdict, the next positions move up into the wave.
"""

from collections.abc import Iterable

import numpy as np

from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet import cut
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.scope import Parts, reach
from edgefleet.rollout.holdback import cut_before, holdback_size
from edgefleet.rollout.lifecycle.state import WaveState
from edgefleet.rollout.lifecycle.typed_replace import replace
from edgefleet.rollout.lifecycle.waves import Opening


def next_openings(active: ActiveRollout, fleet: Fleet, now: float) -> tuple[Opening, ...]:
    """The waves to open next, up to the first with a larger cut. Empty after the last wave.

    Waves with the cut of the open wave are passed at once, because they add no devices. A wave that
    is open by handfuls comes first, whole.
    """
    state = active.state
    openings: list[Opening] = []
    last = state.open_wave
    count = None if last is None else last.cut
    waves = list(state.waves[: 0 if state.wave is None else state.wave + 1])
    for wave in state.waves[_next_index(active) :]:
        opening = _open(active, fleet, wave, waves, now)
        openings.append(opening)
        if opening.cut != count:
            break
        waves.append(_opened(wave, opening))
    return tuple(openings)


def leads_on(active: ActiveRollout, openings: tuple[Opening, ...]) -> bool:
    """True if one of ``openings`` has a larger cut than the open wave."""
    last = active.state.open_wave
    return bool(openings) and (last is None or openings[-1].cut != last.cut)


def handful_openings(
    active: ActiveRollout, fleet: Fleet, more: int, now: float
) -> tuple[Opening, ...]:
    """``next_openings``, with only the next ``more`` devices. Empty if no device is left."""
    openings = next_openings(active, fleet, now)
    if not leads_on(active, openings):
        return ()
    state, *passed = active.state, *openings[:-1]
    index = _next_index(active)
    waves = [*state.waves[: 0 if state.wave is None else state.wave + 1]]
    waves += [_opened(state.waves[index + n], opening) for n, opening in enumerate(passed)]
    wave, whole = state.waves[index + len(passed)], openings[-1]
    rows = _next_rows(active, fleet, wave, waves, now)
    places = active.scope.positions(rows)
    reached = int(whole.threshold, 16)
    if reached < cut.EVERYONE:
        places = places[places < np.uint64(reached)]
    if len(places) <= more:
        return openings
    threshold = max(cut.cut_at(places, more).threshold, _floor(wave, waves))
    handful = _opening(active, fleet, wave, waves, now, threshold=threshold, by_handfuls=True)
    return (*passed, handful)


def moved_up(active: ActiveRollout, fleet: Fleet, more: int, now: float) -> Opening | None:
    """The open wave with the ``more`` next online devices. None if there is none."""
    state, wave = active.state, active.state.open_wave
    if state.wave is None or wave is None:
        return None
    waves = list(state.waves[: state.wave + 1])
    places = active.scope.positions(_next_rows(active, fleet, wave, waves, now))
    if not len(places):
        return None
    threshold = max(cut.cut_at(places, more).threshold, _floor(wave, waves))
    return _opening(
        active,
        fleet,
        wave,
        waves,
        now,
        threshold=threshold,
        planned=wave.planned,
        by_handfuls=wave.by_handfuls,
    )


def count_spare(active: ActiveRollout, fleet: Fleet, now: float) -> int:
    """Number of online devices that could move up into the open wave."""
    state, wave = active.state, active.state.open_wave
    is_whole = wave is None or wave.holdback or int(wave.threshold or "0", 16) >= cut.EVERYONE
    if state.wave is None or wave is None or is_whole:
        return 0
    return len(_next_rows(active, fleet, wave, list(state.waves[: state.wave + 1]), now))


def count_remaining(active: ActiveRollout) -> int:
    """Number of eligible devices, online or not, that a later wave may add before the bake."""
    state = active.state
    if _next_index(active) >= len(state.waves):
        return 0
    population = active.scope.counts("")[0]
    held = holdback_size(state.spec, state.previous, population)
    return max(0, population - held - len(active.members()))


def _next_index(active: ActiveRollout) -> int:
    """Index of the wave that opens next. A wave that is open by handfuls opens again, whole."""
    state, last = active.state, active.state.open_wave
    if state.wave is None or last is None:
        return 0
    return state.wave if last.by_handfuls else state.wave + 1


def _open(
    active: ActiveRollout, fleet: Fleet, wave: WaveState, before: list[WaveState], now: float
) -> Opening:
    """Cut a wave of the devices that are eligible now. ``before``: the opened waves.

    The cut is the k-th position among the online devices, with k counted from them. Offline devices
    at lower positions are in the wave too. If no device is online, it is cut from all of them, so
    that no wave is empty.
    """
    if wave.count is None and (wave.percent is None or wave.percent >= 100):
        every, held = _chosen(active, wave), _left_out(active, before)
        whole = cut_before(active.scope, every, _parts(active, before), held)
        return _opening(active, fleet, wave, before, now, threshold=whole.threshold)
    chosen = _chosen(active, wave)
    online = _online(fleet, chosen, now)
    places = active.scope.positions(online if len(online) else chosen)
    count = wave.count
    if count is None:
        count = cut.wanted(wave.percent or 0.0, len(places))
    threshold = cut.cut_at(places, count, floor=_floor(wave, before)).threshold
    return _opening(active, fleet, wave, before, now, threshold=threshold)


def _opening(
    active: ActiveRollout,
    fleet: Fleet,
    wave: WaveState,
    before: list[WaveState],
    now: float,
    *,
    threshold: int,
    planned: int | None = None,
    by_handfuls: bool = False,
) -> Opening:
    """The opening of ``wave`` at ``threshold``. ``planned``: None for the online devices inside."""
    scope, every = active.scope, active.scope.eligible_rows()
    opened = replace(wave, threshold=f"{threshold:016x}", rows=len(fleet))
    parts = reach(_parts(active, [*before, opened]))
    inside = every[scope.all_inside(every, parts)]
    return Opening(
        cut=len(inside),
        threshold=f"{threshold:016x}",
        population=len(every),
        rows=len(fleet),
        planned=len(_online(fleet, inside, now)) if planned is None else planned,
        began=active.ledger.exposed + active.ledger.count(DeviceStanding.REFUSED),
        by_handfuls=by_handfuls,
    )


def _opened(wave: WaveState, opening: Opening) -> WaveState:
    return replace(wave, threshold=opening.threshold, rows=opening.rows)


def _parts(active: ActiveRollout, waves: Iterable[WaveState]) -> Parts:
    return tuple(active.scope.part(each) for each in waves)


def _left_out(active: ActiveRollout, before: list[WaveState]) -> int:
    """The devices that the wave after ``before`` leaves for the end of the bake."""
    state = active.state
    if len(before) + 1 < len(state.waves):
        return 0
    return holdback_size(state.spec, state.previous, len(active.scope.eligible_rows()))


def _chosen(active: ActiveRollout, wave: WaveState) -> Rows:
    """The eligible devices that the selector of the wave matches."""
    every = active.scope.eligible_rows()
    return every[active.scope.matching(every, wave.selector)] if wave.selector else every


def _floor(wave: WaveState, before: list[WaveState]) -> int:
    """The threshold of the opened waves with the same selector: waves only grow."""
    same = (other.threshold for other in before if other.selector == wave.selector)
    return max((int(threshold, 16) for threshold in same if threshold), default=0)


def _next_rows(
    active: ActiveRollout, fleet: Fleet, wave: WaveState, opened: list[WaveState], now: float
) -> Rows:
    """The online devices of the wave's selector that may get the release in a later wave."""
    scope, rows = active.scope, _chosen(active, wave)
    out = scope.all_inside(rows, reach(_parts(active, opened)))
    if active.taken:
        out |= active.all_taken_back(rows)
    return _online(fleet, rows[~out], now)


def _online(fleet: Fleet, rows: Rows, now: float) -> Rows:
    return rows[~fleet.silent_longer(rows, now, fleet.offline_after_s)]
