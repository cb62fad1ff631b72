"""An attempt up to its trial: accept an offer, fetch, prove, ask for admission."""

from collections.abc import Iterable
from typing import Final

from edgefleet.agent import damage, isolation, limits
from edgefleet.agent.activation import go_back, request_apply, start_trial
from edgefleet.agent.checkin import report
from edgefleet.agent.effect import (
    CancelStaging,
    Fetch,
    FetchManifest,
    FileName,
    Prove,
    RemoveSlot,
)
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
from edgefleet.agent.step_context import DeviceContext, StepContext
from edgefleet.agent.table import BEFORE_TRIAL, IN_TRIAL, WORKING, Signal, Stage
from edgefleet.base.errors import CATALOG, Party
from edgefleet.base.ids import is_name
from edgefleet.base.limits import MODELS_PER_DEVICE
from edgefleet.protocol.device import CheckInAnswer, Offer, OutcomeKind, Reason
from edgefleet.protocol.release import Artifact, ReleaseManifest, Variant

_REFUSALS: Final = {
    "digest_mismatch": Reason.DIGEST,
    "signature_invalid": Reason.SIGNATURE,
    "manifest_unreadable": Reason.UNREADABLE,
    "runtime_missing": "runtime_missing",
}

# Bound once, as every answer uses them: Python 3.11 takes 0.2 us to find a member in its class.
_ANNOUNCING: Final = Stage.ANNOUNCING
_IDLE: Final = Stage.IDLE
_SWITCHING: Final = IN_TRIAL | {Stage.REVERTING}
_UNTOUCHED: Final = frozenset({Stage.QUEUED, Stage.MANIFEST})  # the slot has its previous release
_LEFTOVER: Final = Slot(leftover=True)


def apply_answer(device: DeviceContext, sent: Sent, answer: CheckInAnswer) -> None:
    """Adjust each model's attempt to the hub's answer: start, cancel, begin or go back.

    Models that go back do so before a start is considered, so that no trial begins beside them. A
    hub that asks for the list of models decides nothing before it has the list.
    """
    if answer.want in ("models", "all"):
        return
    offers = {offer.model: offer for offer in answer.offers}
    attempts = [name for name, state in device.models.items() if state.stage is not _IDLE]
    if not offers and not attempts:
        return
    _keep_order(device, offers)
    for context in map(device.model, attempts):
        offer = offers.get(context.model)
        stage = context.state.stage
        if stage in BEFORE_TRIAL and stage is not _ANNOUNCING and not _same(context.attempt, offer):
            cancel(context)
        elif offer and stage in IN_TRIAL and _recalls(context.attempt, offer):
            go_back(context, Reason.RECALLED, "The hub rolled the release back.")
    _begin_all(device, [offer for offer in offers.values() if offer.action == "revert"])
    asking = [name for name in attempts if device.models[name].stage is _ANNOUNCING]
    for name in sorted(asking, key=lambda name: _place(device, name)):
        _start_when_admitted(device.model(name), sent, answer, offers.get(name))
    _begin_all(device, offers.values())


def _keep_order(device: DeviceContext, offers: dict[str, Offer]) -> None:
    """Remember the order of the offers. One offer alone has no order."""
    order = tuple(offer.rollout for offer in offers.values()) if len(offers) > 1 else ()
    if order != device.soft.offered:
        device.forgettable(offered=order)


def _place(device: DeviceContext, name: str) -> tuple[int, int]:
    attempt, offered = device.model(name).attempt, device.soft.offered
    place = offered.index(attempt.rollout) if attempt.rollout in offered else len(offered)
    return place, attempt.number


def _begin_all(device: DeviceContext, offers: Iterable[Offer]) -> None:
    for offer in offers:
        state = device.models.get(offer.model)
        if state is None or state.stage is _IDLE:
            _begin(device.model(offer.model), offer)


def _start_when_admitted(
    context: StepContext, sent: Sent, answer: CheckInAnswer, offer: Offer | None
) -> None:
    """Start the trial if the hub admitted it. Wait while the hub still offers the release.

    Only the answer to a check-in with the start counts. The hub has counted an acknowledged start:
    if the offer has changed, or if another model is in trial or goes back, the start is withdrawn.
    The release did not run, so it may be offered again.
    """
    start_id = outcome(context.attempt, OutcomeKind.TRIAL_STARTED, at=context.now).id
    if start_id not in sent.outcomes:
        waiting = {one.id for one in context.device.state.spool}
        if start_id not in waiting:  # dropped by a full spool
            report_start(context)
        return
    is_admitted, is_wanted = start_id in answer.acked, _same(context.attempt, offer)
    if is_admitted and is_wanted and context.device.soft.disk_fault:
        return  # the attempt counter cannot be stored: the start is reported and acknowledged again
    if is_admitted and is_wanted and not _is_trial_taken(context.device):
        start_trial(context)
    elif is_admitted or not is_wanted:
        # The hub counted an acknowledged start, and no other.
        context.change_attempt(asked=is_admitted)
        cancel(context)


def _is_trial_taken(device: DeviceContext) -> bool:
    """Whether a model is in trial or goes back."""
    return any(state.stage in _SWITCHING for state in device.models.values())


def ask(context: StepContext) -> None:
    """Ask the hub for admission to the trial."""
    context.move(Signal.ASKED)
    context.change_attempt(asked=True)
    report_start(context)


def report_start(context: StepContext) -> None:
    """Report the start, with what the shadow phase found. No effect if it is in the spool."""
    attempt = context.attempt
    report(context, OutcomeKind.TRIAL_STARTED, attempt.shadow_reason, attempt.shadow_text)


def wait(context: StepContext) -> None:
    """Stop asking while another model is in trial or goes back."""
    hush(context)
    context.move(Signal.PAUSED)


def cancel(context: StepContext) -> None:
    """Cancel the attempt. Its fetched files stay for the next one."""
    withdraw(context)
    free_shadow(context)
    context.move(Signal.CANCELLED)
    context.keep(attempt=None)
    _no_work(context)
    context.device.do(CancelStaging(model=context.model))


def free_shadow(context: StepContext) -> None:
    """Have the serving process free the candidate, if it is a shadow."""
    if context.state.stage is Stage.SHADOWING:
        context.forgettable(shadow=None)
        request_apply(context.device)


def withdraw(context: StepContext) -> None:
    """Stop asking for admission. Reports a withdrawal if the hub may have counted the start."""
    hush(context)
    if context.attempt.asked:
        report(context, OutcomeKind.WITHDRAWN)
        context.change_attempt(asked=False)


def hush(context: StepContext) -> None:
    """Stop asking for admission for now. The same start may be asked for again."""
    start_id = outcome(context.attempt, OutcomeKind.TRIAL_STARTED, at=context.now).id
    device = context.device
    device.keep(spool=acknowledge(device.state.spool, (start_id,)))


def fetch_manifest(context: StepContext) -> None:
    """Begin the download: the link is free for this model. Later, if the disk has a fault."""
    fault = context.device.soft.disk_fault
    if fault:
        context.forgettable(work_at=context.now + limits.DISK_RETRY_S)
        _defer(context, fault, CATALOG[fault].hint if fault in CATALOG else "")
        return
    if context.state.stage is Stage.QUEUED:
        context.move(Signal.LINKED)
    resume(context)


def resume(context: StepContext) -> None:
    """Request the work of this stage, from its beginning."""
    attempt, device, model = context.attempt, context.device, context.model
    job = device.new_job()
    context.forgettable(work=job, work_at=None)
    match context.state.stage:
        case Stage.MANIFEST:
            sha256 = attempt.manifest_sha256
            device.do(FetchManifest(model=model, job=job, slot=attempt.slot, sha256=sha256))
        case Stage.FETCHING if attempt.installed and not context.soft.have_golden:
            context.set_slot(attempt.slot, _LEFTOVER)
            artifact = attempt.installed.golden.artifact
            device.do(_fetch(context, job, "golden.npz", artifact))
        case Stage.FETCHING if attempt.installed:
            device.do(_fetch(context, job, "model.onnx", attempt.installed.variant.artifact))
        case Stage.PROVING if attempt.installed:
            prove = Prove(model=model, job=job, slot=attempt.slot, installed=attempt.installed)
            device.do(prove)
        case _:
            context.forgettable(work=None)


def _fetch(context: StepContext, job: int, file: FileName, artifact: Artifact) -> Fetch:
    slot = context.attempt.slot
    return Fetch(model=context.model, job=job, slot=slot, file=file, artifact=artifact)


def pause(context: StepContext) -> None:
    """Stop the download or the proof in favour of a model that goes back."""
    if context.state.stage is not Stage.PROVING:
        context.move(Signal.PAUSED)
    _no_work(context)
    context.device.do(CancelStaging(model=context.model))


def wait_for_room(context: StepContext) -> None:
    """Wait for room on the disk, and measure it again after a pause."""
    context.move(Signal.PAUSED)
    context.forgettable(
        work_failures=context.soft.work_failures + 1, work_at=context.now + limits.DISK_RETRY_S
    )
    _defer(context, Reason.DISK_FULL, "The disk has no room for the release.")


def drop_leftovers(context: StepContext) -> None:
    """Remove the files of a cancelled attempt, and measure the disk again."""
    name = other(context.state.active)
    context.set_slot(name, Slot())
    context.device.do(RemoveSlot(model=context.model, slot=name))
    for waiting in map(context.device.model, context.device.models):
        if waiting.state.stage is Stage.QUEUED and waiting.soft.work_at is not None:
            waiting.forgettable(work_at=context.now)


def on_manifest_opened(context: StepContext, event: ManifestOpened) -> None:
    if not _expected(context, event.job, Stage.MANIFEST):
        return
    attempt, manifest = context.attempt, event.manifest
    if event.sha256 != attempt.manifest_sha256 or (manifest.model, manifest.release) != (
        attempt.model,
        attempt.release,
    ):
        _drop_offer(context)
        return
    variant = _variant(context, manifest)
    if variant is None:
        return
    context.move(Signal.OPENED)
    context.change_attempt(
        damage=None, installed=InstalledRelease.of(manifest, event.sha256, variant)
    )
    context.forgettable(work=None, have_golden=False, slot_bytes=event.slot_bytes)
    if event.free_bytes is not None:
        context.device.forgettable(free_bytes=event.free_bytes)


def _drop_offer(context: StepContext) -> None:
    """Forget an offer that is not that of its manifest: the offer was changed on the way.

    The hub offers again. The release is not refused, as its manifest is as it was signed.
    """
    _defer(context, Reason.TRANSFER, "The offer and its signed manifest name different releases.")
    context.forgettable(offers_after=context.now + context.device.state.interval_s)
    cancel(context)


def on_fetched(context: StepContext, event: Fetched) -> None:
    if not _expected(context, event.job, Stage.FETCHING):
        return
    context.forgettable(work_failures=0)
    if not context.soft.have_golden:
        context.forgettable(have_golden=True)
        resume(context)
    else:
        context.move(Signal.FETCHED)
        context.set_slot(context.attempt.slot, Slot(installed=context.attempt.installed))
        context.forgettable(have_golden=False, work=None)


def on_proved(context: StepContext, event: Proved) -> None:
    if not _expected(context, event.job, Stage.PROVING):
        return
    if not event.result.passed:
        refuse(context, event.result.reason or Reason.GOLDEN, event.result.detail)
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
        refuse(context, _REFUSALS[event.code], event.detail)
        return
    if event.code == "transfer_damaged":
        found = damage.after(context.attempt.damage, event, context.now)
        context.change_attempt(damage=found)
        if damage.is_of_the_release(found, context.now, context.device.state.interval_s):
            detail = f"{event.detail} {found.same} downloads brought the same bytes."
            refuse(context, event.refusal or Reason.DIGEST, detail)
            return
        wrong_bytes = damage.wrong_bytes(found, event)
        if wrong_bytes is not None:
            report(context, OutcomeKind.DEFERRED, event.code, event.detail, wrong_bytes=wrong_bytes)
            context.change_attempt(deferred=True)
        elif found.times >= limits.DAMAGE_DEFERRED:
            _defer(context, event.code, event.detail)
    kind = CATALOG.get(event.code)
    if event.found and context.attempt.damage is not None:
        pause_s = damage.pause_s(context.attempt.damage, context.device.state.interval_s)
    elif event.code == "overloaded" or (
        kind is not None and kind.party in (Party.NETWORK, Party.US)
    ):
        interval_s = context.device.state.interval_s
        longest = min(limits.BACKOFF_MAX_S, limits.BACKOFF_INTERVALS * interval_s)
        first = min(limits.BACKOFF_FIRST_S, interval_s)
        pause_s = min(longest, first * 2.0 ** min(context.soft.work_failures, 16))
    else:
        pause_s = limits.DISK_RETRY_S
        _defer(context, event.code, event.detail)
        if event.code == Reason.DISK_FULL and context.state.stage is not Stage.PROVING:
            context.move(Signal.PAUSED)  # the link is free for a model that fits
            context.forgettable(have_golden=False)
    context.forgettable(
        work=None,
        work_failures=context.soft.work_failures + 1,
        work_at=context.now + pause_s * (0.5 + 0.5 * event.draw),
    )


def _defer(context: StepContext, reason: str, detail: str) -> None:
    """Report once that the attempt is postponed."""
    if not context.attempt.deferred:
        report(context, OutcomeKind.DEFERRED, reason, detail)
        context.change_attempt(deferred=True)


def on_timer_fired(device: DeviceContext) -> None:
    """Retry the work of each model after its pause."""
    for name, soft in device.soft_models.items():
        if soft.work_at is not None and soft.work_at <= device.now:
            _retry(device.model(name))


def _retry(context: StepContext) -> None:
    if context.state.stage is Stage.QUEUED:
        context.forgettable(work_at=None)
    elif context.state.stage in WORKING:
        resume(context)


def _begin(context: StepContext, offer: Offer) -> None:
    state, device = context.state, context.device
    installed = active_release(state)
    if context.now < context.soft.offers_after or (
        installed and installed.manifest_sha256 == offer.manifest_sha256
    ):
        return
    if Ended(rollout=offer.rollout, manifest_sha256=offer.manifest_sha256) in state.ended:
        return
    if not is_name(offer.model):  # the hub is not trusted, and the name is part of a path
        return
    target = other(state.active)
    device.keep(attempts=device.state.attempts + 1)
    context.keep(
        attempt=Attempt(
            number=device.state.attempts,
            rollout=offer.rollout,
            action=offer.action,
            model=offer.model,
            release=offer.release,
            manifest_sha256=offer.manifest_sha256,
            confirm_after_s=offer.confirm_after_s,
            max_attempts=max(1, offer.max_attempts),
            max_cpu_increase=offer.max_cpu_increase,
            max_memory_growth_mib_h=offer.max_memory_growth_mib_h,
            shadow=offer.shadow if offer.action == "install" else None,
            slot=target,
            leaving=running(state) or "",
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
        if not _has_place(device, offer.model):
            detail = f"This device has {MODELS_PER_DEVICE} models, which is the limit."
            refuse(context, Reason.TOO_LARGE, detail)


def _has_place(device: DeviceContext, model: str) -> bool:
    """Whether the device may have the model. Forgets models without a slot if that is needed."""
    for name, state in tuple(device.models.items()):
        is_empty = state.attempt is None and Slot() == state.a == state.b
        if len(device.models) > MODELS_PER_DEVICE and name != model and is_empty:
            device.forget(name)
    return len(device.models) <= MODELS_PER_DEVICE


def _switch(context: StepContext) -> None:
    """The slot is proved: stage it for its trial, or activate it for a revert."""
    if context.attempt.action == "revert":
        context.change_attempt(tries=1)
        context.move(Signal.RETURN)
        isolation.forget(context)
        request_apply(context.device)
    else:
        context.move(Signal.TRY)


def _variant(context: StepContext, manifest: ReleaseManifest) -> Variant | None:
    """The variant of this device's profile. Refuses the attempt if the device cannot run one."""
    facts = context.device.state.facts
    profile = facts.profile if facts else ""
    variant = next((one for one in manifest.variants if one.profile == profile), None)
    if variant is None:
        refuse(context, Reason.NO_VARIANT, f"The release has no variant for profile {profile!r}.")
        return None
    if facts and facts.memory_mib and variant.artifact.size_bytes > facts.memory_mib << 20:
        refuse(
            context,
            Reason.TOO_LARGE,
            f"The model is larger than the device's memory of {facts.memory_mib} MiB.",
        )
        return None
    if facts and variant.runtime not in facts.runtimes:
        hint = CATALOG["runtime_missing"].hint
        refuse(context, "runtime_missing", f"This device has no {variant.runtime} runtime. {hint}")
        return None
    return variant


def refuse(context: StepContext, reason: str, detail: str) -> None:
    """End the attempt: the device does not activate the release."""
    withdraw(context)
    free_shadow(context)
    attempt = context.attempt
    report(context, OutcomeKind.REFUSED, reason, detail)
    if attempt.action == "revert":
        context.forgettable(offers_after=context.now + limits.RETURN_RETRY_S)
    else:
        ended = Ended(rollout=attempt.rollout, manifest_sha256=attempt.manifest_sha256)
        context.keep(ended=(*context.state.ended, ended)[-limits.ENDED_ATTEMPTS :])
    if context.state.stage not in _UNTOUCHED:
        context.set_slot(attempt.slot, Slot())
        context.device.do(RemoveSlot(model=context.model, slot=attempt.slot))
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
