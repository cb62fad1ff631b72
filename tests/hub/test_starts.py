"""The acknowledgement of a start is its admission: admissions never exceed the plan's limits."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from edgefleet.base.errors import DeviceError, OperatorError
from edgefleet.hub.hub import Hub
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.protocol.device import Outcome, OutcomeKind, Phase
from edgefleet.protocol.operator import Unquarantine
from edgefleet.protocol.people import Role
from edgefleet.protocol.rollout import (
    ApprovalSpec,
    ApproveRequest,
    Command,
    ExposureSpec,
    Freeze,
    PaceSpec,
    RolloutSpec,
    Verb,
    WaveSpec,
    WindowSpec,
)
from edgefleet.rollout.admission.control import Admission
from edgefleet.security.principals import OPERATOR_TOKEN, Principal
from edgefleet.security.signing import PublisherKey
from support.hub_inside import (
    InsideDevice,
    ManualClock,
    check_in,
    enrol_inside,
    hub_inside,
    outcome,
    publish_inside,
    report,
    stored_outcomes,
)
from support.tiny_releases import tiny_release

KEY = PublisherKey.generate()
STARTED = OutcomeKind.TRIAL_STARTED


def spec(**knobs: Any) -> RolloutSpec:
    return RolloutSpec(
        model="digits",
        release="2",
        waves=(WaveSpec(percent=100),),
        **{"exposure": ExposureSpec(first=10), **knobs},
    )


def rolling(
    tmp_path: Path,
    body: Callable[[Hub, list[InsideDevice], str], Any],
    *,
    devices: int = 40,
    clock: ManualClock | None = None,
    **knobs: Any,
) -> None:
    """Run ``body`` during a rollout of release 2 to every device."""

    async def main() -> None:
        async with hub_inside(tmp_path / "data", clock) as hub:
            fleet = await enrol_inside(hub, devices)
            await publish_inside(hub, KEY, tiny_release(tmp_path, "2"))
            view = await hub.plan(spec(**knobs), OPERATOR_TOKEN)
            await hub.command(view.id, Verb.START, Command(), OPERATOR_TOKEN)
            await body(hub, fleet, view.id)

    asyncio.run(main())


def waits_for_person(hub: Hub) -> set[tuple[str, str]]:
    """The rollouts, with the reasons, that the metrics show as waiting for a person."""
    families = {at.name: at for at in text_string_to_metric_families(hub.metrics())}
    samples = families["edgefleet_rollout_waits_for_person"].samples
    return {(sample.labels["rollout"], sample.labels["code"]) for sample in samples}


async def ask(hub: Hub, device: InsideDevice, rollout: str) -> bool:
    """Report a start. Returns whether the hub admitted it."""
    start = outcome(f"{device.name}-start", STARTED, rollout)
    answer = await report(hub, device, device.said(start, phase=Phase.STAGED))
    return answer.acked == (start.id,)


def test_many_starts_at_once_never_exceed_what_is_allowed_by_one(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice], rollout: str) -> None:
        admitted = await asyncio.gather(*(ask(hub, device, rollout) for device in devices))
        assert sum(admitted) == 10
        view = hub.rollout(rollout)
        assert (view.exposed, view.evidence.in_trial, view.allowed) == (10, 10, 10)
        again = await asyncio.gather(*(ask(hub, device, rollout) for device in devices))
        assert again == admitted, "a repeated start of an admitted device is admitted, no other"

    rolling(tmp_path, run)


def test_a_refused_start_is_neither_stored_nor_acknowledged(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice], rollout: str) -> None:
        for device in devices:
            await ask(hub, device, rollout)
        assert len(stored_outcomes(tmp_path / "data")) == 10

    rolling(tmp_path, run)


def test_other_outcomes_of_the_same_check_in_are_acknowledged(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice], rollout: str) -> None:
        for device in devices[:10]:
            assert await ask(hub, device, rollout)
        late = devices[10]
        deferred = outcome("late-deferred", OutcomeKind.DEFERRED, rollout)
        start = outcome("late-start", STARTED, rollout)
        answer = await report(hub, late, late.said(deferred, start))
        assert answer.acked == ("late-deferred",)

    rolling(tmp_path, run)


def test_a_confirmation_makes_room_for_more(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice], rollout: str) -> None:
        for device in devices[:10]:
            assert await ask(hub, device, rollout)
        assert not await ask(hub, devices[10], rollout)
        well = devices[0]
        await report(hub, well, well.said(outcome("well", OutcomeKind.CONFIRMED, rollout)))
        assert await ask(hub, devices[10], rollout)
        assert not await ask(hub, devices[11], rollout)

    rolling(tmp_path, run)


def test_a_start_that_cannot_be_stored_gives_its_place_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(hub: Hub, devices: list[InsideDevice], rollout: str) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(SqliteStore, "save_outcomes", full_disk)
            for device in devices:
                reply = await check_in(
                    hub, device, device.said(outcome("x", STARTED, rollout), phase=Phase.STAGED)
                )
                assert reply.status == 507
        assert sum([await ask(hub, device, rollout) for device in devices]) == 10

    rolling(tmp_path, run)


async def full_disk(*_arguments: object) -> None:
    raise DeviceError("disk_full", "no room")


def test_whoever_hangs_up_keeps_the_place_that_the_store_gave(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice], rollout: str) -> None:
        asking = [asyncio.ensure_future(ask(hub, device, rollout)) for device in devices[:10]]
        await asyncio.sleep(0)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        assert sum([await ask(hub, device, rollout) for device in devices[10:]]) == 0
        later = outcome("later", OutcomeKind.DEFERRED, rollout)
        await report(hub, devices[39], devices[39].said(later))  # stored after the others
        assert hub.rollout(rollout).exposed == 10

    rolling(tmp_path, run)


def test_a_start_that_is_withdrawn_makes_room_and_may_be_asked_for_anew_after_a_restart(
    tmp_path: Path,
) -> None:
    def told(kind: OutcomeKind, attempt: int, rollout: str) -> Outcome:
        return replace(outcome(f"{attempt}/{kind}", kind, rollout), attempt=attempt)

    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            devices = await enrol_inside(hub, 40)
            await publish_inside(hub, KEY, tiny_release(tmp_path, "2"))
            view = await hub.plan(spec(exposure=ExposureSpec(first=1)), OPERATOR_TOKEN)
            await hub.command(view.id, Verb.START, Command(), OPERATOR_TOKEN)
            first, other = devices[:2]
            start = told(STARTED, 4, view.id)
            assert (await report(hub, first, first.said(start))).acked == (start.id,)
            assert not await ask(hub, other, view.id)
            gave_up = told(OutcomeKind.WITHDRAWN, 4, view.id)
            assert (await report(hub, first, first.said(gave_up))).acked == (gave_up.id,)
            assert hub.rollout(view.id).exposed == 0
            again = told(STARTED, 5, view.id)
            assert (await report(hub, first, first.said(again))).acked == (again.id,)
        async with hub_inside(tmp_path / "data") as hub:
            assert hub.rollout(view.id).evidence.in_trial == 1
            assert not await ask(hub, other, view.id)

    asyncio.run(main())


def test_a_hub_that_was_killed_goes_on_counting_where_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with hub_inside(tmp_path / "data", clock) as hub:
            devices = await enrol_inside(hub, 40)
            await publish_inside(hub, KEY, tiny_release(tmp_path, "2"))
            view = await hub.plan(spec(pace=PaceSpec(starts_per_minute=4)), OPERATOR_TOKEN)
            await hub.command(view.id, Verb.START, Command(), OPERATOR_TOKEN)
            assert sum([await ask(hub, device, view.id) for device in devices]) == 4
        clock.time += 30
        async with hub_inside(tmp_path / "data", clock) as hub:
            assert sum([await ask(hub, device, view.id) for device in devices]) == 4
            clock.time += 31
            assert sum([await ask(hub, device, view.id) for device in devices]) == 8

    asyncio.run(main())


def test_a_hub_that_admits_without_asking_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Admission, "admit", lambda *_: True)
    with pytest.raises(AssertionError):
        test_many_starts_at_once_never_exceed_what_is_allowed_by_one(tmp_path)


def test_a_frozen_fleet_begins_nothing_even_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            devices = await enrol_inside(hub, 5)
            await publish_inside(hub, KEY, tiny_release(tmp_path, "2"))
            view = await hub.plan(spec(), OPERATOR_TOKEN)
            await hub.command(view.id, Verb.START, Command(), OPERATOR_TOKEN)
            said = await hub.freeze(Freeze(frozen=True, person="ada", note="fire"), OPERATOR_TOKEN)
            assert said.since is not None
        async with hub_inside(tmp_path / "data") as hub:
            assert hub.frozen() == said
            assert hub.fleet().frozen
            assert not await ask(hub, devices[0], view.id)
            assert hub.why_rollout(view.id).line == (
                "ada has frozen the whole fleet. Run `edgefleet fleet thaw` to end the freeze."
            )
            answer = await report(hub, devices[1], devices[1].said())
            assert answer.offer is None
            await hub.freeze(Freeze(frozen=False, person="ada"), OPERATOR_TOKEN)
            assert await ask(hub, devices[0], view.id)
            actions = [entry.action for entry in hub.audit(None, 10).entries]
            assert actions[:2] == ["unfreeze", "freeze"]

    asyncio.run(main())


def test_two_people_must_agree_before_anybody_begins(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice], rollout: str) -> None:
        assert not await ask(hub, devices[0], rollout)
        assert waits_for_person(hub) == {(rollout, "approval")}
        ada, bob = (Principal(name, Role.APPROVER, "token 1") for name in ("ada", "bob"))
        await hub.approve(rollout, ApproveRequest(), ada)
        with pytest.raises(OperatorError) as caught:
            await hub.approve(rollout, ApproveRequest(person="bob"), ada)
        assert caught.value.code == "approved_already"
        assert not await ask(hub, devices[0], rollout)
        view = await hub.approve(rollout, ApproveRequest(note="looks good"), bob)
        assert [given.person for given in view.approvals] == ["ada", "bob"]
        assert waits_for_person(hub) == set()
        assert await ask(hub, devices[0], rollout)

    rolling(tmp_path, run, approval=ApprovalSpec(people=2))


def test_a_window_by_the_clock_of_paris(tmp_path: Path) -> None:
    clock = ManualClock(1_751_320_800.0 - 60)  # one minute before midnight in Paris, in summer

    async def run(hub: Hub, devices: list[InsideDevice], rollout: str) -> None:
        assert not await ask(hub, devices[0], rollout)
        wait = hub.why_rollout(rollout).waits[0]
        assert (wait.code.value, wait.until) == ("window", clock.time + 60)
        clock.time += 60
        assert await ask(hub, devices[0], rollout)
        clock.time += 2 * 3600
        assert not await ask(hub, devices[1], rollout)

    window = WindowSpec(start="00:00", end="02:00", timezone="Europe/Paris")
    rolling(tmp_path, run, clock=clock, windows=(window,))


def test_a_quarantined_device_is_listed_until_a_person_clears_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            (device,) = await enrol_inside(hub, 1)
            for release in ("2", "3"):
                await publish_inside(hub, KEY, tiny_release(tmp_path, release))
                view = await hub.plan(RolloutSpec(model="digits", release=release), OPERATOR_TOKEN)
                await hub.command(view.id, Verb.START, Command(), OPERATOR_TOKEN)
                for kind in (STARTED, OutcomeKind.TRIAL_FAILED):
                    said = outcome(f"{release}{kind}", kind, view.id, release)
                    await report(hub, device, device.said(said))
                await hub.command(view.id, Verb.HALT, Command(), OPERATOR_TOKEN)
            found = hub.quarantined()
            assert "edgefleet_quarantined_devices 1\n" in hub.metrics()
            assert [(one.name, one.model, one.rollbacks) for one in found.devices] == [
                (device.name, "digits", 2)
            ]
            assert hub.device(device.name).quarantined == ("digits",)
        async with hub_inside(tmp_path / "data") as hub:
            assert hub.quarantined().count == 1
            await hub.unquarantine(device.name, Unquarantine(person="ada"), OPERATOR_TOKEN)
            assert hub.quarantined().count == 0
            with pytest.raises(OperatorError) as caught:
                await hub.unquarantine(device.name, Unquarantine(person="ada"), OPERATOR_TOKEN)
            assert caught.value.code == "device_not_quarantined"
        async with hub_inside(tmp_path / "data") as hub:
            assert hub.quarantined().count == 0

    asyncio.run(main())
