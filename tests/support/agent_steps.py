"""Longer ways of the agent's core, as one device with one model goes them."""

from edgefleet.agent.effect import Apply, Fetch, FetchManifest, Prove
from edgefleet.agent.event import (
    Activated,
    CheckInAnswered,
    Fetched,
    ManifestOpened,
    Proved,
    ServingProbed,
    TimerFired,
)
from edgefleet.agent.table import Stage
from edgefleet.protocol.device import CheckInAnswer, Offer
from edgefleet.protocol.serving import ProveResult, ServingStatus
from support.agent_world import Device, manifest, manifest_sha256, offer, serving


def answer(
    device: Device, what: Offer | None = None, *, acked: tuple[str, ...] | None = None
) -> None:
    """The hub answers the check-in in flight and acknowledges its outcomes."""
    sent = device.state.soft.sent
    assert sent is not None
    device.hear(
        CheckInAnswered(
            seq=sent.seq,
            answer=CheckInAnswer(
                interval_s=60.0,
                offers=(what,) if what else (),
                acked=sent.outcomes if acked is None else acked,
            ),
            draw=0.5,
        )
    )


def check_in(device: Device, what: Offer | None = None) -> None:
    """Wait for the next check-in and answer it."""
    if device.state.soft.sent is None:
        device.now = max(device.now, device.state.soft.checkin_at)
        device.hear(TimerFired(draw=0.5))
    answer(device, what)


def stage_release(device: Device, release: str) -> None:
    """From MANIFEST to the end of PROVING, without a failure."""
    device.hear(
        ManifestOpened(
            model="digits",
            job=device.job(FetchManifest),
            sha256=manifest_sha256(release),
            manifest=manifest(release),
        )
    )
    device.hear(Fetched(model="digits", job=device.job(Fetch)))
    device.hear(Fetched(model="digits", job=device.job(Fetch)))
    device.hear(Proved(model="digits", job=device.job(Prove), result=ProveResult(passed=True)))


def to_watching(device: Device, release: str, *, pid: int = 100) -> None:
    check_in(device, offer(release))
    stage_release(device, release)
    check_in(device, offer(release))
    device.hear(Activated(job=device.job(Apply), status=serving(release, pid=pid)))


def look(device: Device, status: ServingStatus | None, *, alive: bool = True) -> None:
    device.hear(ServingProbed(status=status, alive=alive, draw=0.5))


def confirmed_is_served(device: Device, release: str) -> None:
    """The serving process has loaded the confirmed release."""
    device.hear(Activated(job=device.job(Apply), status=serving(release)))
    assert device.kinds() == ()


def installed(release: str = "1") -> Device:
    """A device that serves ``release``, confirmed, with an empty spool."""
    device = Device()
    device.boot(whole=())
    to_watching(device, release)
    device.now += 10
    look(device, serving(release))
    confirmed_is_served(device, release)
    answer(device)
    assert device.stage is Stage.IDLE
    assert device.state.spool == ()
    return device
