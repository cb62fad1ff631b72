"""Every field of a plan has its option, and the option sets only that field."""

import dataclasses
from pathlib import Path

import msgspec
import pytest

from edgefleet.cli.rollout import options as knobs
from edgefleet.cli.rollout.options import KNOBS
from edgefleet.protocol.rollout import BudgetSpec, RolloutSpec, WaveSpec, WindowSpec
from edgefleet.protocol.wire import decode
from support.canned_hub import CannedHub
from support.command_line import CommandLine
from support.engine_script import read_plan
from support.knob_fields import knob_fields

SAID = {
    "selector": ("site=lyon", "site=lyon"),
    "waves": ("10%", ({"percent": 10.0, "count": None, "selector": ""},)),
    "gate.max_error_rate": ("7%", 0.07),
    "gate.max_silent_rate": ("7%", 0.07),
    "gate.alpha": ("0.02", 0.02),
    "gate.min_sample": ("9", 9),
    "gate.soak_s": ("9m", 540.0),
    "gate.confirm_after_s": ("9m", 540.0),
    "gate.silence_s": ("9m", 540.0),
    "gate.patience_s": ("9m", 540.0),
    "bake_s": ("9m", 540.0),
    "holdback_percent": ("2", 2.0),
    "bake_revert_alone": (None, True),
    "shadow.share": ("5%", 0.05),
    "shadow.samples": ("50", 50),
    "shadow.for_s": ("9m", 540.0),
    "shadow.max_disagreement": ("7%", 0.07),
    "gate.max_latency_p95_ms": ("250ms", 250.0),
    "gate.max_latency_increase": ("30%", 0.3),
    "gate.max_request_error_rate": ("7%", 0.07),
    "gate.max_memory_percent": ("70", 70.0),
    "gate.max_accuracy_drop": ("7%", 0.07),
    "gate.max_labelled_accuracy_drop": ("7%", 0.07),
    "gate.max_confidence_drop": ("7%", 0.07),
    "gate.max_request_drop": ("7%", 0.07),
    "gate.max_neighbour_latency_increase": ("7%", 0.07),
    "gate.max_cpu_increase": ("7%", 0.07),
    "gate.max_memory_growth_mib_h": ("7", 7.0),
    "gate.max_temperature_rise": ("7", 7.0),
    "gate.max_throttling_increase": ("7%", 0.07),
    "gate.max_battery_drain_increase": ("7", 7.0),
    "gate.max_drift": ("7%", 0.07),
    "gate.min_requests": ("9", 9),
    "gate.require_traffic": (None, True),
    "gate.max_refusal_rate": ("7%", 0.07),
    "gate.ask_p": ("20%", 0.2),
    "exposure.first": ("9", 9),
    "exposure.growth": ("0.5", 0.5),
    "exposure.ceiling": ("2%", 0.02),
    "gate.rollback": ("all", "all"),
    "gate.classes": ("gpu,site-kind", ("gpu", "site-kind")),
    "pace.starts_per_minute": ("9", 9),
    "pace.bytes_per_s": ("2MiB", 2 << 20),
    "pace.bytes_per_s_per_site": ("64KiB", 64 << 10),
    "site_label": ("depot", "depot"),
    "budgets": ("site=2", ({"label": "site", "max_in_trial": 2},)),
    "windows": (
        "sat-mon 9:00-17:30 Europe/Paris",
        (
            {
                "start": "09:00",
                "end": "17:30",
                "days": ("sat", "sun", "mon"),
                "timezone": "Europe/Paris",
            },
        ),
    ),
    "start_at": ("2026-09-22T02:00+02:00", 1_790_035_200.0),
    "approval.people": ("2", 2),
    "approval.each_wave": (None, True),
    "follow": (None, True),
    "skip_ineligible": (None, True),
    "changes_interface": (None, True),
    "again": ("the lens is clean", "the lens is clean"),
}
SETTABLE = [knob for knob in KNOBS if knob.name not in {"model", "release"}]


def test_every_field_of_a_plan_has_its_option() -> None:
    assert {knob.name for knob in KNOBS} == set(knob_fields())


@pytest.mark.parametrize("knob", SETTABLE, ids=[knob.name for knob in SETTABLE])
def test_an_option_sets_its_knob_and_no_other(knob) -> None:
    text, value = SAID[knob.name]
    spec = read_plan(["2", knob.option, *([] if text is None else [text])])
    expected = msgspec.to_builtins(RolloutSpec(model="digits", release="2"))
    place = expected
    for name in knob.path[:-1]:
        place = place[name]
    place[knob.path[-1]] = value
    assert spec == msgspec.convert(expected, RolloutSpec)


def test_a_plan_says_nothing_that_was_not_said() -> None:
    assert read_plan(["2"]) == RolloutSpec(model="digits", release="2")


def test_waves_may_be_written_in_a_mixture() -> None:
    spec = read_plan(["2", "--wave", "50", "--wave", "10% site=lyon", "--wave", "site in (a,b)"])
    assert spec.waves == (
        WaveSpec(count=50),
        WaveSpec(percent=10, selector="site=lyon"),
        WaveSpec(selector="site in (a,b)"),
    )


def test_options_go_before_the_file(tmp_path: Path, fleet: CommandLine, canned: CannedHub) -> None:
    file = tmp_path / "careful.toml"
    file.write_text(
        'model = "digits"\nrelease = "1"\nfollow = true\n'
        "[gate]\nsoak_s = 600\nmin_sample = 20\n"
        '[[budgets]]\nlabel = "site"\n'
        '[[windows]]\nstart = "22:00"\nend = "06:00"\ntimezone = "device"\n'
    )
    said = fleet("rollout", "plan", "--file", str(file), "--release", "2", "--soak", "5m", "--json")
    assert said.exit == 0, said.err
    sent = decode(canned.asked[-1].body, RolloutSpec)
    assert (sent.model, sent.release, sent.follow) == ("digits", "2", True)
    assert (sent.gate.soak_s, sent.gate.min_sample) == (300, 20)
    assert sent.budgets == (BudgetSpec(label="site"),)
    assert sent.windows == (WindowSpec(start="22:00", end="06:00", timezone="device"),)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('model = "d"\nrelease = "1"\nsoak = 5\n', "soak"),
        ('model = "d"\nrelease = "1"\n[gate]\nsoak = 5\n', "soak"),
        ('model = "d"\nrelease = "1"\n[gate]\nsoak_s = "long"\n', "gate.soak_s"),
        ('release = "1"\n', "--model"),
        ("model = ", "TOML|cannot be read"),
    ],
)
def test_a_file_that_is_no_plan_is_refused_by_name(
    tmp_path: Path, fleet: CommandLine, canned: CannedHub, text: str, named: str
) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(text)
    said = fleet("rollout", "plan", "--file", str(file))
    assert said.exit == 2
    assert any(part in said.err for part in named.split("|")), said.err
    assert canned.asked == []


def test_two_ways_to_say_waves_are_one_too_many(fleet: CommandLine) -> None:
    said = fleet("rollout", "plan", "--model", "d", "--release", "1", "--waves", "1", "--wave", "2")
    assert (said.exit, "not both" in said.err) == (2, True)


def test_a_mistake_in_the_table_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    knob = next(knob for knob in KNOBS if knob.name == "gate.soak_s")
    slip = dataclasses.replace(knob, path=("gate", "patience_s"))
    monkeypatch.setattr(knobs, "KNOBS", tuple(slip if each is knob else each for each in KNOBS))
    with pytest.raises(AssertionError):
        test_an_option_sets_its_knob_and_no_other(knob)
