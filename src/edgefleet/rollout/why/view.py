"""The view of a rollout. Its size does not depend on the size of the fleet."""

from edgefleet.protocol.release import unjudged
from edgefleet.protocol.rollout import Evidence, Judgement, RolloutView, Status, WaveView
from edgefleet.protocol.why import WaitReport
from edgefleet.rollout import bake
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.limits import OUTAGES_SHOWN


def show(
    active: ActiveRollout,
    evidence: Evidence,
    judgement: Judgement | None,
    why: WaitReport,
    allowed: int | None,
) -> RolloutView:
    """Build the view. ``judgement`` is the current one of the open wave, or None."""
    state = active.state
    spec = state.spec
    is_open = state.status in (Status.RUNNING, Status.PAUSED, Status.HALTED)
    return RolloutView(
        id=state.id,
        model=spec.model,
        release=spec.release,
        previous=state.previous,
        adds=state.adds,
        had_model=state.had_model,
        replaced=state.replaced,
        beside=state.beside,
        left_out=state.left_out,
        unjudged=unjudged(active.release.manifest),
        interface=state.interface,
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
            _wave(active, index, share, judgement if index == state.wave else None)
            for index, share in enumerate(shares(active))
        ),
        gate=spec.gate,
        plan=spec,
        ineligible=active.scope.ineligible(),
        allowed=allowed,
        planned_by=state.planned_by,
        approvals=state.approvals,
        evidence=evidence,
        exposed=active.ledger.exposed,
        outages=state.outages[-OUTAGES_SHOWN:],
        taken_back=state.taken_back,
        bake=bake.show(state),
        why=why,
    )


def shares(active: ActiveRollout) -> tuple[float, ...]:
    """Percent of the eligible devices in each wave and all waves before it.

    For a wave that has not opened this is the planned share. Such a wave with a selector counts as
    if no earlier wave contained any of its devices.
    """
    found: list[float] = []
    for wave in active.state.waves:
        before = found[-1] if found else 0.0
        if wave.percent is not None and not wave.selector:
            share = max(before, wave.percent)
        elif wave.cut is not None and wave.population:
            share = 100 * wave.cut / wave.population
        else:
            eligible, chosen = active.scope.counts(wave.selector)
            much = chosen if wave.percent is None else chosen * wave.percent / 100
            much = much if wave.count is None else min(chosen, wave.count)
            base = before if wave.selector else 0.0
            share = max(before, min(100.0, base + 100 * much / max(1, eligible)))
        found.append(share)
    return tuple(found)


def _wave(
    active: ActiveRollout, index: int, percent: float, now_judged: Judgement | None
) -> WaveView:
    wave = active.state.waves[index]
    return WaveView(
        name=wave.name,
        percent=percent,
        selector=wave.selector,
        cut=None if wave.cut is None else wave.cut - active.gone(index),
        threshold=wave.threshold,
        population=wave.population,
        by_handfuls=wave.by_handfuls,
        opened_at=wave.opened_at,
        closed_at=wave.closed_at,
        exposed=0 if wave.opened_at is None else active.ledger.exposed_up_to(index),
        judgement=wave.judgement if now_judged is None else now_judged,
    )
