"""The transition table: total, drawn in the docs, and the only source of status changes."""

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import Status
from edgefleet.rollout import plan
from edgefleet.rollout.earlier import Earlier
from edgefleet.rollout.lifecycle import step, table
from edgefleet.rollout.lifecycle.event import (
    Event,
    Halted,
    Paused,
    RevertCompleted,
    RevertRequested,
)
from edgefleet.rollout.running_today import RunningToday
from support.plans import START, spec


def test_the_table_has_an_answer_for_everything_that_can_happen_anywhere():
    assert set(table.TABLE) == {
        (status, signal) for status in Status for signal in table.RolloutSignal
    }


def test_every_status_can_be_reached_and_every_open_one_left():
    leads_to = {then for then in table.TABLE.values() if then is not None}
    assert leads_to == set(Status)
    for status in Status:
        exits = [
            then
            for (origin, _), then in table.TABLE.items()
            if origin is status and then not in (None, status)
        ]
        assert bool(exits) == (status not in (Status.REVERTED, Status.REFUSED))


def test_every_signal_is_the_signal_of_one_event():
    events = [event.signal for event in Event.__args__]
    assert sorted(events) == sorted(table.RolloutSignal)


def test_the_drawing_shows_each_transition_once():
    drawing = table.mermaid().splitlines()
    arrows = [line.strip() for line in drawing if "-->" in line and "[*]" not in line]
    assert len(arrows) == sum(then is not None for then in table.TABLE.values())
    assert "running --> reverting: gate failed" in arrows
    assert "    [*] --> planned" in drawing
    assert "    refused --> [*]" in drawing


@pytest.mark.parametrize("event", [Paused(), RevertRequested(), RevertCompleted()])
def test_a_step_that_the_table_does_not_have_is_refused(event: Event):
    state = plan.planned(
        spec("1"), rollout_id="ro-1", salt=1, previous=None, now=START,
        running=RunningToday(0, 0, {}, {}, {}), earlier=Earlier(),
    )  # fmt: skip
    with pytest.raises(OperatorError) as caught:
        step.step(state, event, START)
    assert caught.value.code == "verb_not_now"


def test_a_step_leaves_the_state_before_it_as_it_was():
    state = plan.planned(
        spec("1"), rollout_id="ro-1", salt=1, previous=None, now=START,
        running=RunningToday(0, 0, {}, {}, {}), earlier=Earlier(),
    )  # fmt: skip
    after, audit = step.step(state, Halted(), START + 5)
    assert (state.status, after.status) == (Status.PLANNED, Status.HALTED)
    assert (after.generation, after.revision, after.since) == (1, 1, START + 5)
    assert [(line.actor, line.action, line.about) for line in audit] == [
        ("operator", "halt", "rollout/ro-1")
    ]
