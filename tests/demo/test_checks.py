"""The demo's own checks: a good run passes all, and each fault fails its check."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from edgefleet.cli.demo.checks import accuracy, exposed_to_bad, judge
from edgefleet.cli.demo.observations import ClientObservations, RealDevice, StoryObservations
from edgefleet.cli.demo.report import demo_report
from edgefleet.cli.demo.story import STORY
from edgefleet.protocol.operator import FleetView
from edgefleet.protocol.rollout import (
    BakeEnd,
    BakeView,
    Evidence,
    GateSpec,
    RolloutSpec,
    RolloutView,
    Status,
    WaveView,
)
from edgefleet.protocol.why import WaitReport
from edgefleet.sim.load.fleet import FleetReport

CUTS = {1.0: 11, 10.0: 101, 100.0: 1003}


def rollout(
    name: str, status: Status, reason: str, exposed: int, percents: tuple[float, ...]
) -> RolloutView:
    opened = tuple(
        WaveView(percent=percent, cut=CUTS[percent], exposed=min(exposed, CUTS[percent]))
        for percent in percents
    )
    unopened = tuple(WaveView(percent=percent) for percent in CUTS if percent > percents[-1])
    model, release = name.split()
    about = f"rollout/{release}"
    return RolloutView(
        id=release,
        model=model,
        release=release,
        previous=None,
        selector="",
        status=status,
        reason=reason,
        text="",
        generation=1,
        created_at=0.0,
        started_at=0.0,
        ended_at=1.0,
        wave=None,
        waves=opened + unopened,
        gate=GateSpec(),
        plan=RolloutSpec(model=model, release=release),
        evidence=Evidence(),
        exposed=exposed,
        why=WaitReport(about=about, at=1.0, line="", waits=()),
    )


def baked(view: RolloutView, end: BakeEnd | None = BakeEnd.PASSED) -> RolloutView:
    bake = BakeView(until=6.0, ended_at=6.0, end=end, holdback=0, windows=3, shares=(), alert=None)
    return msgspec.structs.replace(view, bake=bake)


def client(agent: str = "edge-pi") -> ClientObservations:
    return ClientObservations(
        agent=agent,
        model="digits",
        requests=300,
        failed=0,
        answered={"1": 100, "2": 200},
        right={"1": 93, "2": 197},
        last="2",
    )


def parity_client(agent: str = "edge-pi") -> ClientObservations:
    return ClientObservations(
        agent=agent,
        model="parity",
        requests=100,
        failed=0,
        answered={"1": 100},
        right={"1": 97},
        last="1",
    )


BOTH = {"digits": "2", "parity": "1"}
GOOD = StoryObservations(
    chapters=STORY,
    rollouts=(
        rollout("digits 1", Status.COMPLETED, "completed", 960, (100.0,)),
        baked(rollout("digits 2", Status.COMPLETED, "completed", 961, (1.0, 10.0, 100.0))),
        rollout("digits 3", Status.REVERTED, "error_rate", 10, (1.0,)),
        rollout("parity 1", Status.COMPLETED, "completed", 961, (100.0,)),
        rollout("digits 4", Status.REFUSED, "refused_by_devices", 0, (1.0,)),
    ),
    expected_devices=1003,
    hub=FleetView(
        at=0.0,
        total=1003,
        online=962,
        by_profile={},
        on_release={"digits": {"2": 960}, "parity": {"1": 958}},
        by_phase={},
        rollouts_open=(),
    ),
    listed={"digits": {"2": 961}, "parity": {"1": 960}},
    fleet=FleetReport(
        kind="progress",
        at=0.0,
        devices=1000,
        link_up=960,
        on_release={"digits": {"2": 958}, "parity": {"1": 955}},
        ran={"digits": {"1": 957, "2": 958, "3": 10}, "parity": {"1": 955}},
        ran_now={
            "digits": {"1": {"2": 957}, "2": {"2": 958}, "3": {"2": 10}},
            "parity": {"1": {"1": 955}},
        },
        phases={},
    ),
    real=tuple(RealDevice(name, BOTH, BOTH) for name in ("edge-pi", "edge-jetson")),
    clients=(
        client("edge-pi"),
        parity_client("edge-pi"),
        client("edge-jetson"),
        parity_client("edge-jetson"),
    ),
    seconds=60.0,
    url="http://127.0.0.1:1",
)


def with_rollout(place: int, view: RolloutView | None) -> StoryObservations:
    rollouts = (*GOOD.rollouts[:place], view, *GOOD.rollouts[place + 1 :])
    return replace(GOOD, rollouts=rollouts)


def with_fleet(**changes: Any) -> StoryObservations:
    return replace(GOOD, fleet=msgspec.structs.replace(GOOD.fleet, **changes))


def with_hub(**changes: Any) -> StoryObservations:
    return replace(GOOD, hub=msgspec.structs.replace(GOOD.hub, **changes))


def with_real(**changes: Any) -> StoryObservations:
    return replace(GOOD, real=(replace(GOOD.real[0], **changes), *GOOD.real[1:]))


def with_parity_client(**changes: Any) -> StoryObservations:
    changed = replace(parity_client(), **changes)
    return replace(GOOD, clients=(GOOD.clients[0], changed, *GOOD.clients[2:]))


def with_client(**changes: Any) -> StoryObservations:
    return replace(GOOD, clients=(replace(client(), **changes), *GOOD.clients[1:]))


def failed(observed: StoryObservations) -> set[str]:
    return {check.name for check in judge(observed) if not check.holds}


def test_the_good_story_passes_every_check() -> None:
    assert failed(GOOD) == set()
    assert len(judge(GOOD)) == 17


GOOD_2 = rollout("digits 2", Status.COMPLETED, "completed", 961, (1.0, 10.0, 100.0))
ONLINE = GOOD.hub.on_release
BROKEN: dict[str, tuple[Callable[[], StoryObservations], set[str]]] = {
    "a good release is rolled back": (
        lambda: with_rollout(
            1, rollout("digits 2", Status.REVERTED, "error_rate", 10, (1.0, 10.0, 100.0))
        ),
        {"digits_2_completed", "digits_2_baked"},
    ),
    "a rollout that bakes has no bake": (
        lambda: with_rollout(1, msgspec.structs.replace(GOOD_2, bake=None)),
        {"digits_2_baked"},
    ),
    "a bake that never ends": (lambda: with_rollout(1, baked(GOOD_2, None)), {"digits_2_baked"}),
    "a bake that the next rollout cuts short": (
        lambda: with_rollout(1, baked(GOOD_2, BakeEnd.SUPERSEDED)),
        {"digits_2_baked"},
    ),
    "a bad release completes": (
        lambda: with_rollout(
            2, rollout("digits 3", Status.COMPLETED, "completed", 900, (1.0, 10.0, 100.0))
        ),
        {"digits_3_reverted", "caught_early"},
    ),
    "the right end for an unknown reason": (
        lambda: with_rollout(2, rollout("digits 3", Status.REVERTED, "by_hand", 10, (1.0,))),
        {"digits_3_reverted"},
    ),
    "a chapter that was not reached": (
        lambda: with_rollout(4, None),
        {"digits_4_refused", "exposure_within_cut", "refused_before_activation"},
    ),
    "more took it than the wave allows, says the hub": (
        lambda: with_rollout(2, rollout("digits 3", Status.REVERTED, "error_rate", 12, (1.0,))),
        {"exposure_within_cut"},
    ),
    "more took it than the wave allows, say the devices": (
        lambda: with_fleet(ran={"digits": {"3": 12}}),
        {"exposure_within_cut"},
    ),
    "caught in the last wave": (
        lambda: with_rollout(
            2, rollout("digits 3", Status.REVERTED, "error_rate", 10, (1.0, 10.0, 100.0))
        ),
        {"caught_early"},
    ),
    "caught in the last of two waves": (
        lambda: with_rollout(
            2, rollout("digits 3", Status.REVERTED, "error_rate", 10, (1.0, 100.0))
        ),
        {"caught_early"},
    ),
    "an offline device still runs the bad one": (
        lambda: replace(GOOD, listed={"digits": {"2": 960, "3": 1}}),
        {"nobody_on_bad"},
    ),
    "a device runs the bad one and hides it": (
        lambda: with_fleet(on_release={"digits": {"2": 957, "3": 1}}),
        {"nobody_on_bad"},
    ),
    "a user still gets the bad one": (
        lambda: with_client(answered={"1": 100, "2": 190, "3": 10}, last="3"),
        {"nobody_on_bad", "back_on_good"},
    ),
    "a device went back too far": (
        lambda: with_fleet(ran_now={"digits": {"3": {"2": 9, "1": 1}}}),
        {"back_on_good"},
    ),
    "what must be refused ran once": (
        lambda: with_fleet(ran={"digits": {"3": 10, "4": 1}}),
        {"refused_before_activation"},
    ),
    "a device is missing": (
        lambda: with_hub(total=1002),
        {"fleet_on_good_digits", "fleet_on_good_parity"},
    ),
    "much of the fleet is on the old release": (
        lambda: with_hub(on_release={**ONLINE, "digits": {"2": 700, "1": 260}}),
        {"fleet_on_good_digits"},
    ),
    "an online device is on a release of no rollout": (
        lambda: with_hub(on_release={**ONLINE, "digits": {"2": 959, "9": 1}}),
        {"fleet_on_good_digits"},
    ),
    "much of the fleet runs nothing": (
        lambda: with_hub(on_release={**ONLINE, "digits": {"2": 700}}),
        {"fleet_on_good_digits"},
    ),
    "one request failed": (lambda: with_client(failed=1), {"no_request_to_digits_failed"}),
    "no client sent a request": (lambda: with_client(requests=0), {"no_request_to_digits_failed"}),
    "no client at all": (
        lambda: replace(GOOD, clients=()),
        {"no_request_to_digits_failed", "no_request_to_parity_failed", "better_answers"},
    ),
    "the better release answers worse": (
        lambda: replace(
            GOOD, clients=(replace(client(), right={"1": 93, "2": 100}), parity_client())
        ),
        {"better_answers"},
    ),
    "the better release never answered": (
        lambda: replace(
            GOOD,
            clients=(
                replace(client(), answered={"1": 300}, right={"1": 280}, last="1"),
                parity_client(),
            ),
        ),
        {"better_answers"},
    ),
    "the added model is rolled back": (
        lambda: with_rollout(
            3, rollout("parity 1", Status.REVERTED, "neighbour_harmed", 10, (100.0,))
        ),
        {"parity_1_completed"},
    ),
    "much of the fleet lacks the added model": (
        lambda: with_hub(on_release={**ONLINE, "parity": {"1": 700}}),
        {"fleet_on_good_parity"},
    ),
    "no device has the added model": (
        lambda: with_hub(on_release={"digits": {"2": 960}}),
        {"fleet_on_good_parity"},
    ),
    "the added model is not listed on a real device": (
        lambda: with_real(listed={"digits": "2"}),
        {"models_side_by_side"},
    ),
    "the added model displaced the first on a real device": (
        lambda: with_real(served={"parity": "1"}),
        {"models_side_by_side"},
    ),
    "a real device serves an old release": (
        lambda: with_real(served={**BOTH, "digits": "1"}),
        {"models_side_by_side"},
    ),
    "no real device": (lambda: replace(GOOD, real=()), {"models_side_by_side"}),
    "one request to the added model failed": (
        lambda: with_parity_client(failed=1),
        {"no_request_to_parity_failed"},
    ),
    "a client of the added model sent no request": (
        lambda: with_parity_client(requests=0),
        {"no_request_to_parity_failed"},
    ),
    "a bad release of one model is not a bad release of another": (
        lambda: replace(GOOD, listed={**GOOD.listed, "parity": {"1": 959, "3": 1}}),
        set(),
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_goes_wrong_is_found_by_its_check(what: str) -> None:
    make, names = BROKEN[what]
    assert failed(make()) == names


def test_exposure_counts_what_hub_and_devices_saw_whichever_is_more() -> None:
    assert exposed_to_bad(GOOD) == 10
    assert exposed_to_bad(with_fleet(ran={"digits": {"3": 11, "4": 1}})) == 12


def test_accuracy_is_by_the_release_that_answered() -> None:
    assert accuracy(GOOD.clients) == {"digits": {"1": 0.93, "2": 0.985}, "parity": {"1": 0.97}}


def test_the_json_object_has_the_promised_keys() -> None:
    said = msgspec.to_builtins(demo_report(GOOD, judge(GOOD)))
    assert {"rollouts", "devices", "exposed_to_bad", "inference"} <= said.keys()
    assert said["rollouts"][2] == {
        "model": "digits",
        "release": "3",
        "verdict": "reverted",
        "reason": "error_rate",
        "waves": ({"percent": 1.0, "cut": 11, "exposed": 10},),
    }
    assert said["devices"] == {
        "total": 1003,
        "on_release": {"digits": {"2": 960}, "parity": {"1": 958}},
        "real": {"edge-pi": BOTH, "edge-jetson": BOTH},
    }
    assert said["inference"] == {
        "requests": 800,
        "failed": 0,
        "models": {
            "digits": {"requests": 600, "failed": 0, "accuracy": {"1": 0.93, "2": 0.985}},
            "parity": {"requests": 200, "failed": 0, "accuracy": {"1": 0.97}},
        },
    }
