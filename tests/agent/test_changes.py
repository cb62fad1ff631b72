"""A type checker refuses a change of the agent's state with a wrong field or type."""

from pathlib import Path
from typing import get_type_hints

import pytest

from edgefleet.agent import typed_replace
from edgefleet.agent.state import (
    AgentState,
    Attempt,
    ModelSoft,
    ModelState,
    QualityWindow,
    Slot,
    Soft,
    Watch,
    Windows,
)
from edgefleet.protocol.device import Facts, Outcome, Telemetry
from support.planted import refused_lines, wrong_lines

PLANTED = """\
from edgefleet.agent.typed_replace import replace
from edgefleet.agent.state import AgentState, QualityWindow, Slot, Watch, Windows
from edgefleet.agent.step_context import StepContext
from edgefleet.protocol.device import Outcome, Telemetry

def plant(
    context: StepContext, slot: Slot, watch: Watch, windows: Windows, window: QualityWindow,
    outcome: Outcome, telemetry: Telemetry, state: AgentState,
) -> None:
    context.keep(active="a")
    context.forgettable(work=1, watch=None)
    context.device.keep(seq_reserved=1)
    context.device.forgettable(missed=1, switch=None)
    context.change_attempt(tries=1)
    replace(slot, proved=True)
    replace(watch, missed=1, healthy_since=2.0)
    replace(windows, filling=window, full=None)
    replace(window, requests=1)
    replace(outcome, accuracy=None)
    replace(telemetry, scores=None)
    replace(state, attempts=1)
    context.keep(activ="a")  # wrong
    context.keep(active="c")  # wrong
    context.forgettable(wrk=1)  # wrong
    context.forgettable(work="1")  # wrong
    context.device.keep(seq_reservd=1)  # wrong
    context.device.keep(seq_reserved="1")  # wrong
    context.device.forgettable(mised=1)  # wrong
    context.device.forgettable(missed=None)  # wrong
    context.change_attempt(trys=1)  # wrong
    context.change_attempt(tries="1")  # wrong
    replace(slot, prooved=True)  # wrong
    replace(slot, proved="yes")  # wrong
    replace(watch, mised=1)  # wrong
    replace(watch, missed="1")  # wrong
    replace(windows, filing=window)  # wrong
    replace(windows, filling=1)  # wrong
    replace(window, request=1)  # wrong
    replace(window, requests="1")  # wrong
    replace(outcome, acuracy=None)  # wrong
    replace(outcome, accuracy="1")  # wrong
    replace(telemetry, score=None)  # wrong
    replace(telemetry, scores=1)  # wrong
    replace(state, atempts=1)  # wrong
    replace(state, attempts="1")  # wrong
    replace(slot, attempts=1)  # wrong
"""


@pytest.mark.parametrize(
    ("named", "struct"),
    [
        (typed_replace.StateChanges, AgentState),
        (typed_replace.ModelChanges, ModelState),
        (typed_replace.SoftChanges, Soft),
        (typed_replace.ModelSoftChanges, ModelSoft),
        (typed_replace.AttemptChanges, Attempt),
        (typed_replace.SlotChanges, Slot),
        (typed_replace.WatchChanges, Watch),
        (typed_replace.WindowsChanges, Windows),
        (typed_replace.QualityChanges, QualityWindow),
        (typed_replace.FactsChanges, Facts),
        (typed_replace.OutcomeChanges, Outcome),
        (typed_replace.TelemetryChanges, Telemetry),
    ],
)
def test_the_changes_are_the_fields_of_the_struct(named: type, struct: type) -> None:
    assert get_type_hints(named) == get_type_hints(struct)


def test_a_planted_wrong_change_is_found(tmp_path: Path) -> None:
    found, printed = refused_lines(PLANTED, tmp_path)
    assert found == wrong_lines(PLANTED), printed
