"""A rollout as people see it. Constant size, whatever the fleet."""

from edgefleet.protocol.rollout import Evidence, Judgement, RolloutView, Status, WaveView
from edgefleet.protocol.why import WaitReport
from edgefleet.rollout.state import WaveState
from edgefleet.rollout.track import Track


def show(
    track: Track, evidence: Evidence, judgement: Judgement | None, why: WaitReport
) -> RolloutView:
    """``judgement`` is the gate's word of this moment on the open wave, if one is open."""
    state = track.state
    spec = state.spec
    is_open = state.status in (Status.RUNNING, Status.PAUSED, Status.HALTED)
    return RolloutView(
        id=state.id,
        model=spec.model,
        release=spec.release,
        previous=state.previous,
        selector=spec.selector,
        status=state.status,
        reason=state.reason,
        text=state.text,
        generation=state.generation,
        created_at=state.created_at,
        started_at=state.started_at,
        ended_at=state.ended_at,
        wave=state.wave if is_open else None,
        waves=tuple(
            _wave(track, index, wave, judgement if index == state.wave else None)
            for index, wave in enumerate(state.waves)
        ),
        gate=spec.gate,
        plan=spec,
        evidence=evidence,
        exposed=track.ledger.exposed,
        why=why,
    )


def _wave(track: Track, index: int, wave: WaveState, now_judged: Judgement | None) -> WaveView:
    return WaveView(
        percent=wave.percent,
        cut=wave.cut,
        threshold=wave.threshold,
        population=wave.population,
        opened_at=wave.opened_at,
        closed_at=wave.closed_at,
        exposed=0 if wave.opened_at is None else track.ledger.exposed_up_to(index),
        judgement=wave.judgement if now_judged is None else now_judged,
    )
