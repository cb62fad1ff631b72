"""The checkers of several models: each accepts a right history, and reports a wrong one."""

from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.protocol.device import Offer
from edgefleet.protocol.rollout import Status
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.checkers.models_known import ModelsKnown
from edgefleet.sim.virtual.checkers.neighbour_untouched import NeighbourUntouched
from edgefleet.sim.virtual.checkers.one_trial import OneTrial
from edgefleet.sim.virtual.observer import Checker, Switches
from edgefleet.sim.virtual.scenario import NEW, OLD
from edgefleet.testing import MemoryHub
from support.fleets import memory_hub
from support.many_models import ManyModels, of, publish

MODELS = ("digits", "detector")
NUMBERS = {None: 0, OLD: 1, NEW: 2}
D0, D1, BOTH = np.array([0]), np.array([1]), np.array([0, 1])


class History:
    """Two devices with two models, which run release 1. The second agent has one model."""

    def __init__(self, kind: type[Checker]) -> None:
        self.hub: MemoryHub = memory_hub(2)
        for model in MODELS:
            publish(self.hub, model, OLD, NEW)
        self.devices = [ManyModels(self.hub, row) for row in (0, 1)]
        self.serves = {model: np.array([1, 0], np.uint8) for model in MODELS}
        for model in MODELS:
            self.devices[0].has(model, OLD)
        self.devices[1].has("digits", OLD)
        self.serves["digits"][1] = NUMBERS[OLD]
        for device in self.devices:
            device.check_in()
        self.rollouts = {model: self.hub.start(of(model, NEW)) for model in MODELS}
        run = SimpleNamespace(
            engine=self.hub.engine,
            models=MODELS,
            rollouts=self.rollouts,
            one_model=np.array([False, True]),
            model_of=lambda rollout: self.hub.engine.rollout(rollout).model,
            serves=lambda model: self.serves[model],
            settled=lambda: np.array([True, True]),
            reachable=lambda: np.array([True, True]),
            name=lambda row: f"d{row}",
        )
        self.violations: list[str] = []
        self.run = run
        self.checker = kind(run, lambda _name, text: self.violations.append(text))
        for model in MODELS:
            self.checker.changed(None, self.state(model), 0.0)

    def state(self, model: str) -> RolloutState:
        return next(one for one in self.hub.states() if one.id == self.rollouts[model])

    def offer(self, model: str, release: str, *, action: str = "install", by: str = "") -> None:
        """The hub offers the release to the first device."""
        rollout = self.rollouts[by or model]
        made = Offer(
            rollout=rollout,
            action="revert" if action == "revert" else "install",
            model=model,
            release=release,
            manifest_sha256="0" * 64,
            confirm_after_s=1.0,
        )
        self.checker.offered(D0, made, 0.0)

    def install(self, model: str) -> None:
        """The first device is offered release 2 of the model, tries and confirms it."""
        self.offer(model, NEW)
        self.checker.activated(D0, model, NEW, "install", 0.0)
        self.checker.confirmed(D0, model, NEW, 0.0)
        self.serves[model][0] = NUMBERS[NEW]

    def reverts(self, model: str) -> None:
        before = self.state(model)
        self.checker.changed(before, replace(before, status=Status.REVERTING), 0.0)

    def return_to_old(self, model: str) -> None:
        """The first device is offered release 1 of the model, and goes back to it."""
        self.offer(model, OLD, action="revert")
        self.checker.activated(D0, model, OLD, "revert", 0.0)
        self.checker.confirmed(D0, model, OLD, 0.0)


# One trial at a time.


def switches(trials: str = "", returns: str = "", began: str = "") -> Switches:
    return Switches(*(frozenset(models.split()) for models in (trials, returns, began)))


def test_a_model_may_go_back_beside_a_trial_that_began_before() -> None:
    history = History(OneTrial)
    history.checker.switching(D0, switches("digits", "detector"), 0.0)
    history.checker.switching(D0, switches("", "digits detector"), 0.0)
    assert history.violations == []


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (switches("digits detector"), "d0: detector and digits are in trial at once"),
        (
            switches("digits", "detector", "digits"),
            "d0: the trial of digits begins while detector goes back",
        ),
    ],
)
def test_a_second_trial_is_reported(seen: Switches, text: str) -> None:
    history = History(OneTrial)
    history.checker.switching(D0, seen, 0.0)
    assert history.violations == [text]


# The neighbours of a rollout.


def test_each_rollout_may_install_and_take_back_its_own_model() -> None:
    history = History(NeighbourUntouched)
    history.install("digits")
    history.install("detector")
    history.checker.activated(D0, "digits", NEW, "restore", 0.0)  # the process was started again
    history.reverts("detector")
    history.return_to_old("detector")
    history.checker.dropped(D0, "detector", 0.0, on_trial=True)
    assert history.violations == []


def test_a_device_may_be_taken_back_twice_and_may_confirm_the_release_between() -> None:
    history = History(NeighbourUntouched)
    history.install("digits")
    history.reverts("digits")
    history.return_to_old("digits")
    history.return_to_old("digits")
    assert history.violations == []


def neighbour_is_offered_its_old_release(history: History) -> None:
    history.offer("digits", OLD)


def neighbour_goes_back_by_itself(history: History) -> None:
    history.checker.activated(D0, "digits", OLD, "restore", 0.0)


def pointer_of_neighbour_moves(history: History) -> None:
    history.checker.confirmed(D0, "digits", OLD, 0.0)


def rollout_changes_another_model(history: History) -> None:
    history.offer("digits", NEW, by="detector")


def neighbour_is_dropped(history: History) -> None:
    history.checker.dropped(D0, "digits", 0.0, on_trial=False)


def release_comes_from_nowhere(history: History) -> None:
    history.checker.activated(D1, "digits", NEW, "install", 0.0)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (neighbour_is_offered_its_old_release, "d0 is offered digits 1, but digits 2 is confirmed"),
        (neighbour_goes_back_by_itself, "d0 serves digits 1, but digits 2 is confirmed there"),
        (pointer_of_neighbour_moves, "d0 goes back to digits 1, but digits 2 is confirmed there"),
        (rollout_changes_another_model, "is of detector and changes digits"),
        (neighbour_is_dropped, "d0 no longer serves digits, which was confirmed"),
        (release_comes_from_nowhere, "d1 serves digits 2, which no rollout offered"),
    ],
)
def test_a_rollback_of_detector_that_touches_digits_is_reported(wrong, text: str) -> None:
    history = History(NeighbourUntouched)
    history.install("digits")
    history.install("detector")
    history.reverts("detector")
    assert history.violations == []
    wrong(history)
    (violation,) = history.violations
    assert text in violation


def test_a_second_model_for_an_agent_with_one_is_reported() -> None:
    history = History(NeighbourUntouched)
    offer = Offer(
        rollout=history.rollouts["detector"],
        action="install",
        model="detector",
        release=NEW,
        manifest_sha256="0" * 64,
        confirm_after_s=1.0,
    )
    history.checker.offered(BOTH, offer, 0.0)
    assert history.violations == ["d1 has digits and one model only, and is offered detector"]


def test_a_release_that_no_rollout_gives_is_reported() -> None:
    history = History(NeighbourUntouched)
    del history.run.rollouts["detector"]
    history.checker.activated(D0, "detector", NEW, "restore", 0.0)
    assert history.violations == ["d0 serves detector 2, which no rollout gives"]


# The hub's table of models.


def test_the_hub_may_ask_once_for_all_models_and_once_more_after_a_restart() -> None:
    history = History(ModelsKnown)
    history.checker.listed(BOTH, 0.0, full=False, wanted=True)
    history.checker.listed(BOTH, 0.0, full=True, wanted=False)
    history.hub.restart()
    history.run.engine = history.hub.engine
    history.checker.listed(D0, 0.0, full=False, wanted=True)
    assert history.violations == []


def test_a_hub_that_asks_twice_is_reported() -> None:
    history = History(ModelsKnown)
    history.checker.listed(BOTH, 0.0, full=True, wanted=False)
    history.checker.listed(D1, 0.0, full=False, wanted=True)
    history.checker.listed(D0, 0.0, full=True, wanted=True)
    assert history.violations == [
        "d1 sent all its models, and the hub asks for them again",
        "d0 sent all its models, and the hub asks for them again",
    ]


def test_a_table_that_is_equal_to_the_devices_is_right() -> None:
    history = History(ModelsKnown)
    history.checker.ended(0.0)
    history.devices[0].has("digits", NEW)
    history.devices[0].check_in()
    history.serves["digits"][0] = NUMBERS[NEW]
    history.checker.ended(0.0)
    assert history.violations == []


@pytest.mark.parametrize("release", [NEW, None])
def test_a_table_with_another_release_is_reported(release: str | None) -> None:
    history = History(ModelsKnown)
    history.serves["detector"][0] = NUMBERS[release]
    history.checker.ended(0.0)
    assert history.violations == ["d0: the hub has another release of detector in its table"]


def test_a_device_that_is_still_busy_is_not_compared() -> None:
    history = History(ModelsKnown)
    history.serves["detector"][0] = NUMBERS[NEW]
    history.run.settled = lambda: np.array([False, True])
    history.checker.ended(0.0)
    assert history.violations == []
