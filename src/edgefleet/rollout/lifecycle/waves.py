"""The changes to the waves of a rollout: opened, closed, with a new cut, or with a judgement."""

from typing import Unpack

from edgefleet.protocol.rollout import Judgement
from edgefleet.protocol.wire import Wire
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.rollout.lifecycle.typed_replace import WaveChanges, replace
from edgefleet.rollout.limits import SMALL_FLEET

SAME_CUT = "same_cut"


class Opening(Wire, frozen=True, kw_only=True):
    """The values that a wave gets when it opens: see WaveState."""

    cut: int
    threshold: str
    population: int
    rows: int
    planned: int
    began: int
    by_handfuls: bool = False


def walked(
    state: RolloutState,
    judgement: Judgement,
    openings: tuple[Opening, ...],
    now: float,
    *,
    closed: bool,
) -> RolloutState:
    """Close the open wave, then open each of ``openings``, closing all but the last at once."""
    wave = state.open_wave
    if wave is not None and wave.by_handfuls and openings:
        whole = replace_wave(state, judgement=judgement, handfuls_at=wave.opened_at, opened_at=now)
        state = resized(whole, openings[0], now)
        openings = openings[1:]
        if not openings and not closed:
            return state
    state = replace_wave(state, judgement=judgement, closed_at=now)
    for number, opening in enumerate(openings):
        state = open_next(state, opening, now)
        if closed or number < len(openings) - 1:
            same = replace(judgement, reason=SAME_CUT, at=now)
            state = replace_wave(state, judgement=same, closed_at=now)
    return state


def open_next(state: RolloutState, opening: Opening, now: float) -> RolloutState:
    index = 0 if state.wave is None else state.wave + 1
    state = replace(state, wave=index)
    return resized(replace_wave(state, opened_at=now), opening, now)


def resized(state: RolloutState, opening: Opening, now: float) -> RolloutState:
    """The state with the cut of ``opening`` for its open wave."""
    sizes = state.sizes
    begins_small = state.wave == 0 and opening.population <= SMALL_FLEET
    if sizes[-1][1] != opening.population if sizes else begins_small:
        state = replace(state, sizes=(*sizes, (opening.began, opening.population)))
    return replace_wave(
        state,
        cut=opening.cut,
        cut_at=now,
        threshold=opening.threshold,
        population=opening.population,
        rows=opening.rows,
        planned=opening.planned,
        by_handfuls=opening.by_handfuls,
    )


def waits_for(state: RolloutState, judgement: Judgement) -> RolloutState:
    """The state with the judgement, which keeps the time since when its reason holds."""
    wave = state.open_wave
    before = None if wave is None else wave.judgement
    if before is not None and before.reason == judgement.reason and before.at <= judgement.at:
        return state
    return replace_wave(state, judgement=judgement)


def replace_wave(state: RolloutState, **changes: Unpack[WaveChanges]) -> RolloutState:
    """The state with changes to its open wave, which must exist."""
    if state.wave is None:
        msg = f"{state.id} has no open wave"
        raise AssertionError(msg)
    waves = list(state.waves)
    waves[state.wave] = replace(waves[state.wave], **changes)
    return replace(state, waves=tuple(waves))
