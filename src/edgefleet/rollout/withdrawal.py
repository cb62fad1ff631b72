"""The event by which a failed judgement takes a release back: from all devices, or from a part."""

from edgefleet.protocol.rollout import Judgement, Rollback, Status, TakenBack
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.evidence import gate
from edgefleet.rollout.lifecycle import step as steps
from edgefleet.rollout.lifecycle.step import Event


def withdrawn(active: ActiveRollout, judgement: Judgement) -> Event:
    """The event of a rollout whose ``judgement`` fails, in a wave or in the bake."""
    if judgement.reason == gate.ONE_SITE:
        return steps.PartFailed(judgement=judgement, part=_failed_site(judgement))
    part = _failed_part(active, judgement)
    if part is not None:
        failed = steps.ClassFailed if part.others_go_on else steps.PartFailed
        return failed(judgement=judgement, part=part)
    if judgement.evidence.exposed or active.state.status is Status.COMPLETED:
        return steps.GateFailed(judgement=judgement)
    return steps.RefusedByDevices(judgement=judgement)


def _failed_site(judgement: Judgement) -> TakenBack:
    """The site on which the judgement rests. The rollout halts: the release may be the cause."""
    site = judgement.evidence.one_site
    if site is None:
        msg = "the judgement names no site"
        raise AssertionError(msg)
    return TakenBack(
        key=site.key,
        value=site.value,
        at=judgement.at,
        reason=judgement.reason,
        text=judgement.text,
    )


def _failed_part(active: ActiveRollout, judgement: Judgement) -> TakenBack | None:
    """The devices that alone give the release back: those of an episode that fail.

    None if the release fails on others, too, or the plan takes it back from all devices.
    """
    since = judgement.evidence.late.episode_since
    if judgement.reason != gate.LATE_FAILURES or since is None:
        return None
    if active.state.spec.gate.rollback is Rollback.ALL:
        return None
    return TakenBack(
        since=since,
        until=judgement.at,
        at=judgement.at,
        reason=judgement.reason,
        text=judgement.text,
    )
