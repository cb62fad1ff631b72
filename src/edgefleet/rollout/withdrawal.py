"""The event by which a failed judgement takes a release back: from all devices, or from a part.

The part is a class of devices on which it fails, if the devices outside the class are no evidence
against it; the one site on which the judgement rests; or the devices that began after a pause.
"""

from edgefleet.protocol.rollout import Judgement, Rollback, Status, TakenBack
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.evidence import class_test, gate
from edgefleet.rollout.lifecycle import event as events
from edgefleet.rollout.lifecycle.event import Event


def withdrawn(active: ActiveRollout, judgement: Judgement) -> Event:
    """The event of a rollout whose ``judgement`` fails, in a wave or in the bake."""
    if judgement.reason == gate.ONE_SITE:
        return events.PartFailed(judgement=judgement, part=_failed_site(judgement))
    part = _failed_part(active, judgement)
    if part is not None:
        is_class = judgement.reason == gate.CLASS_FAILURES
        failed = events.ClassFailed if is_class else events.PartFailed
        return failed(judgement=judgement, part=part)
    if judgement.evidence.exposed or active.state.status is Status.COMPLETED:
        return events.GateFailed(judgement=judgement)
    return events.RefusedByDevices(judgement=judgement)


def _failed_site(judgement: Judgement) -> TakenBack:
    """The site on which the judgement rests. The rollout halts: the release may be the cause."""
    site = judgement.evidence.one_site
    if site is None:
        msg = "the judgement names no site"
        raise AssertionError(msg)
    return _part(judgement, key=site.key, value=site.value)


def _failed_part(active: ActiveRollout, judgement: Judgement) -> TakenBack | None:
    """The devices that alone give the release back.

    None if the release fails on others, too, or the plan takes it back from all devices.
    """
    spec, evidence = active.state.spec.gate, judgement.evidence
    if spec.rollback is Rollback.ALL:
        return None
    if judgement.reason == gate.CLASS_FAILURES:
        found = class_test.failed_class(evidence, spec)
        if found is None or not class_test.fails_alone(evidence, spec, found):
            return None
        return _part(judgement, key=found.key, value=found.value)
    since = evidence.late.episode_since
    if judgement.reason != gate.LATE_FAILURES or since is None:
        return None
    return _part(judgement, since=since, until=judgement.at)


def _part(
    judgement: Judgement,
    *,
    since: float | None = None,
    until: float | None = None,
    key: str = "",
    value: str = "",
) -> TakenBack:
    return TakenBack(
        since=since,
        until=until,
        key=key,
        value=value,
        at=judgement.at,
        reason=judgement.reason,
        text=judgement.text,
    )
