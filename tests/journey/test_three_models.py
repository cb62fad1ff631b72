"""Three models of three tasks on one real device: two bad releases harm no client of another model."""

from collections.abc import Generator
from pathlib import Path

import pytest

from edgefleet.agent.table import Stage
from edgefleet.protocol.rollout import RolloutView, Status
from support.kill_sweep import PHASES, Sweep
from support.three_models import (
    CRASHES,
    DEVICE,
    MODELS,
    SEGFAULT_MARK,
    Home,
    copy_of,
    home,
    release_folder,
    unavailable,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(unavailable()), reason=unavailable()),
]


@pytest.fixture
def device(tmp_path: Path) -> Generator[Home]:
    with home(tmp_path) as made:
        yield made


def reasons(view: RolloutView) -> dict[str, int]:
    return view.evidence.reasons


@pytest.mark.parametrize(
    "crash",
    ["segfault", *(pytest.param(c, marks=pytest.mark.long) for c in CRASHES if c != "segfault")],
)
def test_two_bad_releases_of_three_models_are_rolled_back_and_no_request_fails(
    device: Home, crash: str
) -> None:
    for model, release in (("digits", "2"), ("gauge", "3"), ("gauge", "2"), ("detector", "3")):
        device.publish(release_folder(model, release))
    marked = release_folder("detector", "1")
    device.publish(copy_of(marked, "segfault", device.folder, description=SEGFAULT_MARK))
    with device.clients() as clients:
        for client in clients.values():
            client.wait_for_answers(40)  # enough of release 1 to compare with
        serving = device.agent.status()
        device.roll_out("digits", "2")
        device.roll_out("gauge", "3")
        digits, wrong = device.ended("digits"), device.ended("gauge")
        device.check()
        device.roll_out("detector", crash)
        device.roll_out("gauge", "2")
        crashed, gauge = device.ended("detector"), device.ended("gauge")
        for client in clients.values():
            client.wait_for_answers(40)
        device.check()
    for model in MODELS:
        assert clients[model].faults == [], model
    after = device.agent.status()
    assert serving is not None
    assert after is not None
    assert after.pid == serving.pid, "the serving process ended"
    assert (digits.status, gauge.status) == (Status.COMPLETED, Status.COMPLETED)
    assert (wrong.status, reasons(wrong)) == (Status.REVERTED, {"confidence_drop": 1})
    assert (crashed.status, reasons(crashed)) == (Status.REVERTED, {"serving_crashed": 1})
    assert CRASHES[crash] in device.agent.log()
    fell = next(one for one in device.history() if one.reason == "confidence_drop")
    assert (fell.model, fell.release, fell.kind) == ("gauge", "3", "trial_failed")
    assert fell.detail.startswith("Mean confidence fell from ")
    assert fell.duration_s is not None
    judged = wrong.waves[0].judgement
    assert judged is not None
    assert judged.text.startswith(f"{DEVICE}: {fell.detail} 1 of 1 devices failed (100 %), 5 %")
    assert device.confirmed == {"detector": "1", "digits": "2", "gauge": "2"}
    assert {one.model: one.release for one in after.models} == device.confirmed
    assert "3" in clients["gauge"].answers, "the wrong release was asked"
    device.agent.wait(lambda state: all(one.stage is Stage.IDLE for one in state.models.values()))


def test_after_a_kill_in_each_phase_every_model_has_a_release_that_was_asked_for(
    device: Home,
) -> None:
    """``make kills`` has at least ten kills in each phase."""
    sweep = Sweep(device, seed=1)
    with device.clients() as clients:
        for client in clients.values():
            client.wait_for_answers(40)
        sweep.until(1, rounds=6)
        for client in clients.values():
            client.wait_for_answers(40)
    assert [phase for phase in PHASES if not sweep.kills[phase]] == []
    assert {model: client.faults for model, client in clients.items()} == {
        model: [] for model in MODELS
    }
