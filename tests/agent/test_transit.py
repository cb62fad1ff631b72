"""Damage in transit is a fault of the network, and of the release only if it stays the same."""

import pytest

from edgefleet.agent import limits
from edgefleet.agent.effect import Fetch, FetchManifest
from edgefleet.agent.event import ManifestOpened, StagingFailed, TimerFired
from edgefleet.agent.state import AgentState
from edgefleet.agent.stored import from_store, to_store
from edgefleet.agent.table import Stage
from edgefleet.protocol.device import OutcomeKind
from support.agent_steps import check_in, installed
from support.agent_world import Device, manifest, manifest_sha256, offer

DAY_S = 86_400.0


def offered() -> Device:
    """A device on release 1 whose download of release 2 is in progress."""
    device = installed("1")
    check_in(device, offer("2"))
    return device


def damage(
    device: Device, found: str, refusal: str = "digest_mismatch", expected: str = ""
) -> float:
    """A download brings other bytes. Returns the seconds until the next one."""
    job = device.soft.work
    assert job is not None
    device.hear(
        StagingFailed(
            model="digits", job=job, code="transfer_damaged", detail="Other bytes.", draw=1.0,
            expected=expected, found=found, refusal=refusal,
        )
    )  # fmt: skip
    return 0.0 if device.soft.work_at is None else device.soft.work_at - device.now


def try_again(device: Device) -> None:
    """The pause is over: the next download begins."""
    assert device.soft.work_at is not None
    device.now = device.soft.work_at
    device.hear(TimerFired(draw=0.5))
    while device.soft.work is None:  # a check-in was due first
        device.hear(TimerFired(draw=0.5))


def kinds(device: Device) -> list[tuple[OutcomeKind, str]]:
    return [(one.kind, one.reason) for one in device.state.spool]


def test_other_bytes_each_time_are_never_blamed_on_the_release() -> None:
    device, began, tries = offered(), 1000.0, 0
    while device.now - began < DAY_S:
        damage(device, found=f"digest {tries}")
        assert device.stage is Stage.MANIFEST
        try_again(device)
        tries += 1
    assert tries < 25, "each download may cost all bytes of the release"
    assert [kind for kind, _ in kinds(device)] == [OutcomeKind.DEFERRED]
    assert kinds(device)[0][1] == "transfer_damaged"
    device.hear(
        ManifestOpened(
            model="digits", job=device.job(FetchManifest), sha256=manifest_sha256("2"),
            manifest=manifest("2"),
        )
    )  # fmt: skip
    assert device.did(Fetch)
    assert device.mine.attempt is not None
    assert device.mine.attempt.damage is None


def test_one_mismatch_is_not_even_reported() -> None:
    device = offered()
    assert damage(device, "d") == limits.BACKOFF_FIRST_S
    assert kinds(device) == []


@pytest.mark.parametrize("refusal", ["digest_mismatch", "signature_invalid"])
def test_the_same_wrong_bytes_over_time_are_those_of_the_release(refusal: str) -> None:
    device, began = offered(), 1000.0
    for _ in range(limits.DAMAGE_SAME + 3):
        damage(device, "always the same", refusal)
        if device.stage is Stage.IDLE:
            break
        try_again(device)
    assert (OutcomeKind.REFUSED, refusal) in kinds(device)
    assert device.now - began >= limits.DAMAGE_INTERVALS * device.state.interval_s


def test_the_same_wrong_bytes_at_once_are_a_cache_on_the_way() -> None:
    device = offered()
    for _ in range(limits.DAMAGE_SAME):
        damage(device, "from a cache")
        try_again(device)
    assert device.stage is Stage.MANIFEST


def wrong_bytes(device: Device) -> list[tuple[str, str]]:
    return [
        (one.wrong_bytes.expected, one.wrong_bytes.found)
        for one in device.state.spool
        if one.wrong_bytes is not None
    ]


def test_the_hub_is_told_of_wrong_bytes_that_came_twice() -> None:
    device = offered()
    damage(device, "a" * 64, expected="e" * 64)
    try_again(device)
    assert wrong_bytes(device) == []
    damage(device, "a" * 64, expected="e" * 64)
    assert kinds(device) == [(OutcomeKind.DEFERRED, "transfer_damaged")]
    assert wrong_bytes(device) == [("e" * 64, "a" * 64)]
    for _ in range(2):
        try_again(device)
        damage(device, "a" * 64, expected="e" * 64)
    assert wrong_bytes(device) == [("e" * 64, "a" * 64)]


def test_other_wrong_bytes_are_another_report() -> None:
    device = offered()
    for found in ("a", "b", "c", "c"):
        damage(device, found * 64, expected="e" * 64)
        try_again(device)
    assert [found[:1] for _, found in wrong_bytes(device)] == ["c"]
    assert len({one.id for one in device.state.spool}) == len(device.state.spool) == 2


def test_the_hub_is_not_told_of_the_bytes_of_a_manifest() -> None:
    device = offered()
    for _ in range(3):
        damage(device, "a" * 64)
        try_again(device)
    assert (len(kinds(device)), wrong_bytes(device)) == (1, [])


def test_a_login_page_is_tried_again_as_a_lost_link_is() -> None:
    device = offered()
    for _ in range(30):
        pause_s = damage(device, found="")
        assert device.stage is Stage.MANIFEST
        try_again(device)
    assert pause_s <= limits.BACKOFF_MAX_S
    assert kinds(device) == [(OutcomeKind.DEFERRED, "transfer_damaged")]


def test_the_count_survives_a_restart() -> None:
    device = offered()
    damage(device, "d")
    state: AgentState = from_store(to_store(device.state))
    attempt = state.models["digits"].attempt
    assert attempt is not None
    assert attempt.damage is not None
    assert (attempt.damage.found, attempt.damage.times) == ("d", 1)
