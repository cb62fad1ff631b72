"""An attempt up to its trial: accept an offer, fetch, prove, ask for admission."""

from typing import Final

from edgefleet.agent import limits
from edgefleet.agent.activation import activate, go_back, start_trial
from edgefleet.agent.checkin import report
from edgefleet.agent.effect import CancelStaging, Fetch, FetchManifest, Prove, RemoveSlot
from edgefleet.agent.event import Fetched, ManifestOpened, Proved, StagingFailed
from edgefleet.agent.spool import acknowledge, outcome
from edgefleet.agent.state import (
    Attempt,
    Ended,
    InstalledRelease,
    Sent,
    Slot,
    active_release,
    other,
    running,
    slot,
)
from edgefleet.agent.step_context import StepContext
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

# Bound once, as every answer uses them: Python 3.11 takes 0.2 us to find a member in its class.
_ANNOUNCING: Final = Stage.ANNOUNCING
_IDLE: Final = Stage.IDLE


def apply_answer(context: StepContext, sent: Sent, answer: CheckInAnswer) -> None:
    """Adjust the attempt to the hub's answer: start, cancel, begin or go back."""
    offer = answer.offer
    if context.state.stage is _ANNOUNCING:
        _start_when_admitted(context, sent, answer)
    elif context.state.stage in BEFORE_TRIAL and not _same(context.attempt, offer):
        cancel(context)
    stage = context.state.stage
    if offer is None:
        return
    if stage is _IDLE:
        _begin(context, offer)
    elif stage in IN_TRIAL and _recalls(context.attempt, offer):
        go_back(context, Reason.RECALLED, "The hub rolled the release back.")


def _start_when_admitted(context: StepContext, sent: Sent, answer: CheckInAnswer) -> None:
    """Start the trial if the hub admitted it. Wait while the hub still offers the release.

    Only the answer to a check-in with the start counts. The hub has counted an acknowledged start:
    if the offer has changed, the start is withdrawn. The release did not run, so it may be offered
    again.
    """
    start_id = outcome(context.attempt, OutcomeKind.TRIAL_STARTED, at=context.now).id
    if start_id not in sent.outcomes:
        waiting = {one.id for one in context.state.spool}
        if start_id not in waiting:  # dropped by a full spool
            report(context, OutcomeKind.TRIAL_STARTED)
        return
    wanted = _same(context.attempt, answer.offer)
    if start_id in answer.acked and wanted:
        start_trial(context)
    elif not wanted:
        # The hub counted an acknowledged start, and no other.
        context.change_attempt(asked=start_id in answer.acked)
        cancel(context)


def cancel(context: StepContext) -> None:
    """Cancel the attempt. Its fetched files stay for the next one."""
    withdraw(context)
    context.move(Signal.CANCELLED)
    context.keep(attempt=None)
    _no_work(context)
    context.do(CancelStaging())


def withdraw(context: StepContext) -> None:
    """Stop asking for admission. Reports a withdrawal if the hub may have counted the start."""
    hush(context)
    if context.attempt.asked:
        report(context, OutcomeKind.WITHDRAWN)
        context.change_attempt(asked=False)


def hush(context: StepContext) -> None:
    """Stop asking for admission for now. The same start may be asked for again."""
    start_id = outcome(context.attempt, OutcomeKind.TRIAL_STARTED, at=context.now).id
    context.keep(spool=acknowledge(context.state.spool, (start_id,)))


def resume(context: StepContext) -> None:
    """Request the work of this stage, from its beginning."""
    attempt = context.attempt
    job = context.new_job()
    context.forgettable(work=job, work_at=None)
    match context.state.stage:
        case Stage.MANIFEST:
            context.do(FetchManifest(job=job, slot=attempt.slot, sha256=attempt.manifest_sha256))
        case Stage.FETCHING if attempt.installed and not context.soft.have_golden:
            golden = attempt.installed.golden.artifact
            context.do(Fetch(job=job, slot=attempt.slot, file="golden.npz", artifact=golden))
        case Stage.FETCHING if attempt.installed:
            model = attempt.installed.variant.artifact
            context.do(Fetch(job=job, slot=attempt.slot, file="model.onnx", artifact=model))
        case Stage.PROVING if attempt.installed:
            context.do(Prove(job=job, slot=attempt.slot, installed=attempt.installed))
        case _:
            context.forgettable(work=None)


def on_manifest_opened(context: StepContext, event: ManifestOpened) -> None:
    if not _expected(context, event.job, Stage.MANIFEST):
        return
    attempt, manifest = context.attempt, event.manifest
    if event.sha256 != attempt.manifest_sha256 or (manifest.model, manifest.release) != (
        attempt.model,
        attempt.release,
    ):
        _refuse(context, Reason.DIGEST, "The manifest is not the offered one.")
        return
    variant = _variant(context, manifest)
    if variant is None:
        return
    installed = InstalledRelease(
        model=manifest.model,
        release=manifest.release,
        manifest_sha256=event.sha256,
        variant=variant,
        golden=manifest.golden,
        quality=manifest.quality,
    )
    context.move(Signal.OPENED)
    context.change_attempt(installed=installed)
    context.set_slot(attempt.slot, Slot())
    context.forgettable(have_golden=False, work_failures=0)
    resume(context)


def on_fetched(context: StepContext, event: Fetched) -> None:
    if not _expected(context, event.job, Stage.FETCHING):
        return
    context.forgettable(work_failures=0)
    if not context.soft.have_golden:
        context.forgettable(have_golden=True)
    else:
        context.move(Signal.FETCHED)
        context.set_slot(context.attempt.slot, Slot(installed=context.attempt.installed))
        context.forgettable(have_golden=False)
    resume(context)


def on_proved(context: StepContext, event: Proved) -> None:
    if not _expected(context, event.job, Stage.PROVING):
        return
    if not event.result.passed:
        _refuse(context, event.result.reason or Reason.GOLDEN, event.result.detail)
        return
    context.set_slot(
        context.attempt.slot,
        Slot(installed=context.attempt.installed, proved=True, accuracy=event.result.accuracy),
    )
    _no_work(context)
    _switch(context)


def on_staging_failed(context: StepContext, event: StagingFailed) -> None:
    """Refuse the attempt if no retry can succeed. Otherwise retry after a pause."""
    if not _expected(context, event.job, *WORKING):
        return
    if event.code in _REFUSALS:
        _refuse(context, _REFUSALS[event.code], event.detail)
        return
    failures = context.soft.work_failures
    kind = CATALOG.get(event.code)
    if kind is not None and kind.party in (Party.NETWORK, Party.US):
        longest = min(limits.BACKOFF_MAX_S, limits.BACKOFF_INTERVALS * context.state.interval_s)
        first = min(limits.BACKOFF_FIRST_S, context.state.interval_s)
        pause = min(longest, first * 2.0 ** min(failures, 16))
    else:
        pause = limits.DISK_RETRY_S
        if not context.attempt.deferred:
            report(context, OutcomeKind.DEFERRED, event.code, event.detail)
            context.change_attempt(deferred=True)
    context.forgettable(
        work=None,
        work_failures=failures + 1,
        work_at=context.now + pause * (0.5 + 0.5 * event.draw),
    )


def on_timer_fired(context: StepContext) -> None:
    """Retry the work after its pause."""
    at = context.soft.work_at
    if at is not None and at <= context.now and context.state.stage in WORKING:
        resume(context)


def _begin(context: StepContext, offer: Offer) -> None:
    state = context.state
    installed = active_release(state)
    if context.now < context.soft.offers_after or (
        installed and installed.manifest_sha256 == offer.manifest_sha256
    ):
        return
    if Ended(rollout=offer.rollout, manifest_sha256=offer.manifest_sha256) in state.ended:
        return
    target = other(state.active)
    serving = running(state)
    context.keep(
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
    if (
        there.proved
        and there.installed
        and there.installed.manifest_sha256 == offer.manifest_sha256
    ):
        context.change_attempt(installed=there.installed)
        _switch(context)
    else:
        context.move(Signal.OFFERED)
        resume(context)


def _switch(context: StepContext) -> None:
    """The slot is proved: ask for admission to its trial, or activate it for a revert."""
    if context.attempt.action == "revert":
        context.change_attempt(tries=1)
        context.move(Signal.RETURN)
        activate(context, context.attempt.slot)
        return
    context.move(Signal.TRY)
    context.change_attempt(asked=True)
    report(context, OutcomeKind.TRIAL_STARTED)


def _variant(context: StepContext, manifest: ReleaseManifest) -> Variant | None:
    """The variant of this device's profile. Refuses the attempt if the device cannot run one."""
    facts = context.state.facts
    profile = facts.profile if facts else ""
    variant = next((one for one in manifest.variants if one.profile == profile), None)
    if variant is None:
        _refuse(context, Reason.NO_VARIANT, f"The release has no variant for profile {profile!r}.")
        return None
    if facts and facts.memory_mib and variant.artifact.size_bytes > facts.memory_mib << 20:
        _refuse(
            context,
            Reason.TOO_LARGE,
            f"The model is larger than the device's memory of {facts.memory_mib} MiB.",
        )
        return None
    if facts and variant.runtime not in facts.runtimes:
        hint = CATALOG["runtime_missing"].hint
        _refuse(context, "runtime_missing", f"This device has no {variant.runtime} runtime. {hint}")
        return None
    return variant


def _refuse(context: StepContext, reason: str, detail: str) -> None:
    withdraw(context)
    attempt = context.attempt
    report(context, OutcomeKind.REFUSED, reason, detail)
    if attempt.action == "revert":
        context.forgettable(offers_after=context.now + limits.RETURN_RETRY_S)
    else:
        ended = Ended(rollout=attempt.rollout, manifest_sha256=attempt.manifest_sha256)
        context.keep(ended=(*context.state.ended, ended)[-limits.ENDED_ATTEMPTS :])
    if context.state.stage is not Stage.MANIFEST:  # until then the slot has its previous release
        context.set_slot(attempt.slot, Slot())
        context.do(RemoveSlot(slot=attempt.slot))
    context.move(Signal.REFUSED)
    context.keep(attempt=None)
    _no_work(context)


def _expected(context: StepContext, job: int, *stages: Stage) -> bool:
    """True for the completion of the work in progress, false for that of stopped work."""
    return context.state.stage in stages and job == context.soft.work


def _no_work(context: StepContext) -> None:
    context.forgettable(work=None, work_at=None, work_failures=0, have_golden=False)


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
