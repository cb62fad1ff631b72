"""Offers that a device refuses from any hub."""

from edgefleet.agent.effect import FetchManifest
from edgefleet.agent.event import CheckInAnswered, ManifestOpened
from edgefleet.agent.table import Stage
from edgefleet.protocol.device import CheckInAnswer, Offer, OutcomeKind
from support.agent_world import Device, manifest, manifest_sha256, offer


def offered(what: Offer) -> Device:
    device = Device()
    device.boot(whole=())
    answer = CheckInAnswer(interval_s=60.0, offers=(what,) if what else ())
    device.hear(CheckInAnswered(seq=device.state.soft.seq, answer=answer, draw=0.5))
    return device


def test_a_signed_manifest_of_the_same_name_is_not_the_one_that_was_offered() -> None:
    device = offered(offer("2"))
    job = device.job(FetchManifest)
    other = manifest_sha256("1")
    device.hear(ManifestOpened(model="digits", job=job, sha256=other, manifest=manifest("2")))
    assert device.stage is Stage.IDLE
    assert [(one.kind, one.reason) for one in device.state.spool] == [
        (OutcomeKind.DEFERRED, "transfer_damaged")
    ]


def test_the_manifest_that_was_offered_is_gone_on_with() -> None:
    device = offered(offer("2"))
    job = device.job(FetchManifest)
    device.hear(
        ManifestOpened(model="digits", job=job, sha256=manifest_sha256("2"), manifest=manifest("2"))
    )
    assert device.stage is Stage.FETCHING
