"""An offer carried out: taken or left, fetched, proved; up to the trial."""

from typing import Final

from edgefleet.agent import limits
from edgefleet.agent.effect import Fetch, FetchManifest, Prove, RemoveSlot, StopWork
from edgefleet.agent.event import Fetched, ManifestOpened, Proved, WorkFailed
from edgefleet.agent.report import report
from edgefleet.agent.spool import acknowledge, outcome
from edgefleet.agent.state import (
    Attempt,
    Ended,
    Held,
    Sent,
    Slot,
    active_held,
    other,
    running,
    slot,
)
from edgefleet.agent.step_context import Turn
from edgefleet.agent.switch import activate, go_back, start_trial
from edgefleet.agent.table import BEFORE_TRIAL, IN_TRIAL, WORKING, Signal, Stage
from edgefleet.base.errors import CATALOG, Party
from edgefleet.protocol.device import CheckInAnswer, Offer, OutcomeKind, Reason
from edgefleet.protocol.release import ReleaseManifest, Variant

_REFUSALS: Final = {
    "digest_mismatch": Reason.DIGEST,
    "signature_invalid": Reason.SIGNATURE,
    "release_file_invalid": Reason.SIGNATURE,
    "runtime_missing": "runtime_missing",
}

# Bound once, as every answer asks for them: Python 3.11 takes 0.2 us to find a member in its class.
_ANNOUNCING: Final = Stage.ANNOUNCING
_IDLE: Final = Stage.IDLE


def take_answer(turn: Turn, sent: Sent, answer: CheckInAnswer) -> None:
    """Bring the attempt in line with what the hub wants now."""
    offer = answer.offer
    if turn.state.stage is _ANNOUNCING:
        _take_leave(turn, sent, answer)
    elif turn.state.stage in BEFORE_TRIAL and not _same(turn.attempt, offer):
        cancel(turn)
    stage = turn.state.stage
    if offer is None:
        return
    if stage is _IDLE:
        _begin(turn, offer)
    elif stage in IN_TRIAL and _recalls(turn.attempt, offer):
        go_back(turn, Reason.RECALLED, "The hub took it back.")


def _take_leave(turn: Turn, sent: Sent, answer: CheckInAnswer) -> None:
    """Start when the hub has admitted it; until then wait, as long as it is wanted.

    Only an answer to the question counts. An acknowledged start is in the hub's books: if it is no
    longer wanted, it is withdrawn; nothing of it ran, so the release may be offered again.
    """
    told = outcome(turn.attempt, OutcomeKind.TRIAL_STARTED, at=turn.now).id
    if told not in sent.outcomes:
        if all(waiting.id != told for waiting in turn.state.spool):  # a full spool dropped it
            report(turn, OutcomeKind.TRIAL_STARTED)
        return
    wanted = _same(turn.attempt, answer.offer)
    if told in answer.acked and wanted:
        start_trial(turn)
    elif not wanted:
        turn.change_attempt(asked=told in answer.acked)  # refused: it is in no books
        cancel(turn)


def cancel(turn: Turn) -> None:
    """Give the attempt up; what was fetched stays for the next one."""
    withdraw(turn)
    turn.move(Signal.CANCELLED)
    turn.keep(attempt=None)
    _no_work(turn)
    turn.do(StopWork())


def withdraw(turn: Turn) -> None:
    """Ask for no start any more, and say so if the hub may have counted it."""
    hush(turn)
    if turn.attempt.asked:
        report(turn, OutcomeKind.WITHDRAWN)
        turn.change_attempt(asked=False)


def hush(turn: Turn) -> None:
    """Ask for no start now. The same one may be asked for again."""
    told = outcome(turn.attempt, OutcomeKind.TRIAL_STARTED, at=turn.now).id
    turn.keep(spool=acknowledge(turn.state.spool, (told,)))


def resume(turn: Turn) -> None:
    """Ask for the work of this stage, from its beginning."""
    attempt = turn.attempt
    job = turn.new_job()
    turn.forgettable(work=job, work_at=None)
    match turn.state.stage:
        case Stage.MANIFEST:
            turn.do(FetchManifest(job=job, slot=attempt.slot, sha256=attempt.manifest_sha256))
        case Stage.FETCHING if attempt.held and not turn.soft.have_golden:
            golden = attempt.held.golden.artifact
            turn.do(Fetch(job=job, slot=attempt.slot, file="golden.npz", artifact=golden))
        case Stage.FETCHING if attempt.held:
            model = attempt.held.variant.artifact
            turn.do(Fetch(job=job, slot=attempt.slot, file="model.onnx", artifact=model))
        case Stage.PROVING if attempt.held:
            turn.do(Prove(job=job, slot=attempt.slot, held=attempt.held))
        case _:
            turn.forgettable(work=None)


def on_manifest_opened(turn: Turn, event: ManifestOpened) -> None:
    if not _expected(turn, event.job, Stage.MANIFEST):
        return
    attempt, manifest = turn.attempt, event.manifest
    if event.sha256 != attempt.manifest_sha256 or (manifest.model, manifest.release) != (
        attempt.model,
        attempt.release,
    ):
        _refuse(turn, Reason.DIGEST, "The manifest is not the one that was offered.")
        return
    variant = _variant(turn, manifest)
    if variant is None:
        return
    held = Held(
        model=manifest.model,
        release=manifest.release,
        manifest_sha256=event.sha256,
        variant=variant,
        golden=manifest.golden,
        quality=manifest.quality,
    )
    turn.move(Signal.OPENED)
    turn.change_attempt(held=held)
    turn.set_slot(attempt.slot, Slot())
    turn.forgettable(have_golden=False, work_failures=0)
    resume(turn)


def on_fetched(turn: Turn, event: Fetched) -> None:
    if not _expected(turn, event.job, Stage.FETCHING):
        return
    turn.forgettable(work_failures=0)
    if not turn.soft.have_golden:
        turn.forgettable(have_golden=True)
    else:
        turn.move(Signal.FETCHED)
        turn.set_slot(turn.attempt.slot, Slot(held=turn.attempt.held))
        turn.forgettable(have_golden=False)
    resume(turn)


def on_proved(turn: Turn, event: Proved) -> None:
    if not _expected(turn, event.job, Stage.PROVING):
        return
    if not event.result.passed:
        _refuse(turn, event.result.reason or Reason.GOLDEN, event.result.detail)
        return
    turn.set_slot(
        turn.attempt.slot, Slot(held=turn.attempt.held, proved=True, accuracy=event.result.accuracy)
    )
    _no_work(turn)
    _switch(turn)


def on_work_failed(turn: Turn, event: WorkFailed) -> None:
    """Refuse what no retry can mend; wait for the rest, longer each time."""
    if not _expected(turn, event.job, *WORKING):
        return
    if event.code in _REFUSALS:
        _refuse(turn, _REFUSALS[event.code], event.detail)
        return
    failures = turn.soft.work_failures
    kind = CATALOG.get(event.code)
    if kind is not None and kind.party in (Party.NETWORK, Party.US):
        longest = min(limits.BACKOFF_MAX_S, limits.BACKOFF_INTERVALS * turn.state.interval_s)
        first = min(limits.BACKOFF_FIRST_S, turn.state.interval_s)
        pause = min(longest, first * 2.0 ** min(failures, 16))
    else:
        pause = limits.DISK_RETRY_S
        if not turn.attempt.deferred:
            report(turn, OutcomeKind.DEFERRED, event.code, event.detail)
            turn.change_attempt(deferred=True)
    turn.forgettable(
        work=None,
        work_failures=failures + 1,
        work_at=turn.now + pause * (0.5 + 0.5 * event.draw),
    )


def on_woke(turn: Turn) -> None:
    """Try the work again when its pause is over."""
    at = turn.soft.work_at
    if at is not None and at <= turn.now and turn.state.stage in WORKING:
        resume(turn)


def _begin(turn: Turn, offer: Offer) -> None:
    state = turn.state
    held = active_held(state)
    if turn.now < turn.soft.offers_after or (
        held and held.manifest_sha256 == offer.manifest_sha256
    ):
        return
    if Ended(rollout=offer.rollout, manifest_sha256=offer.manifest_sha256) in state.ended:
        return
    target = other(state.active)
    serving = running(state)
    turn.keep(
        attempts=state.attempts + 1,
        attempt=Attempt(
            number=state.attempts + 1,
            rollout=offer.rollout,
            action=offer.action,
            model=offer.model,
            release=offer.release,
            manifest_sha256=offer.manifest_sha256,
            confirm_after_s=offer.confirm_after_s,
            max_attempts=max(1, offer.max_attempts),
            slot=target,
            leaving=serving[1] if serving else "",
        ),
    )
    there = slot(state, target)
    if there.proved and there.held and there.held.manifest_sha256 == offer.manifest_sha256:
        turn.change_attempt(held=there.held)
        _switch(turn)
    else:
        turn.move(Signal.OFFERED)
        resume(turn)


def _switch(turn: Turn) -> None:
    """The slot is proved: try it, or go back to it when that is what the hub asks."""
    if turn.attempt.action == "revert":
        turn.change_attempt(tries=1)
        turn.move(Signal.RETURN)
        activate(turn, turn.attempt.slot)
        return
    turn.move(Signal.TRY)
    turn.change_attempt(asked=True)
    report(turn, OutcomeKind.TRIAL_STARTED)


def _variant(turn: Turn, manifest: ReleaseManifest) -> Variant | None:
    """The variant of this device's profile; refuses the attempt when it has none to run."""
    facts = turn.state.facts
    profile = facts.profile if facts else ""
    variant = next((one for one in manifest.variants if one.profile == profile), None)
    if variant is None:
        _refuse(turn, Reason.NO_VARIANT, f"The release has no variant for {profile!r}.")
        return None
    if facts and facts.memory_mib and variant.artifact.size_bytes > facts.memory_mib << 20:
        _refuse(turn, Reason.TOO_LARGE, f"The model is larger than {facts.memory_mib} MiB.")
        return None
    if facts and variant.runtime not in facts.runtimes:
        hint = CATALOG["runtime_missing"].hint
        _refuse(turn, "runtime_missing", f"No {variant.runtime} runtime here. {hint}")
        return None
    return variant


def _refuse(turn: Turn, reason: str, detail: str) -> None:
    withdraw(turn)
    attempt = turn.attempt
    report(turn, OutcomeKind.REFUSED, reason, detail)
    if attempt.action == "revert":
        turn.forgettable(offers_after=turn.now + limits.RETURN_RETRY_S)
    else:
        ended = Ended(rollout=attempt.rollout, manifest_sha256=attempt.manifest_sha256)
        turn.keep(ended=(*turn.state.ended, ended)[-limits.ENDED_ATTEMPTS :])
    if turn.state.stage is not Stage.MANIFEST:  # until then the slot holds what was before it
        turn.set_slot(attempt.slot, Slot())
        turn.do(RemoveSlot(slot=attempt.slot))
    turn.move(Signal.REFUSED)
    turn.keep(attempt=None)
    _no_work(turn)


def _expected(turn: Turn, job: int, *stages: Stage) -> bool:
    """True for the completion of the work under way; others come from work that was stopped."""
    return turn.state.stage in stages and job == turn.soft.work


def _no_work(turn: Turn) -> None:
    turn.forgettable(work=None, work_at=None, work_failures=0, have_golden=False)


def _same(attempt: Attempt, offer: Offer | None) -> bool:
    return offer is not None and (
        offer.rollout,
        offer.action,
        offer.manifest_sha256,
    ) == (attempt.rollout, attempt.action, attempt.manifest_sha256)


def _recalls(attempt: Attempt, offer: Offer) -> bool:
    return (
        attempt.action == "install"
        and offer.action == "revert"
        and offer.manifest_sha256 != attempt.manifest_sha256
    )
