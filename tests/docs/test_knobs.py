"""Every field of a plan has a heading in docs/rollouts.md and a session in tests/scripts."""

import re
from pathlib import Path

import msgspec
import pytest

from edgefleet.cli.rollout.options import KNOBS
from edgefleet.protocol.rollout import RolloutSpec
from support import knob_fields as fields
from support.engine_script import commands

ROOT = Path(__file__).parents[2]
EVERY_PLAN = {"model", "release"}


def headings(page: str) -> set[str]:
    return set(re.findall(r"^### (\S+)$", page, re.MULTILINE))


def shown(scripts: list[str]) -> set[str]:
    """The options in the plans of the sessions."""
    plans = [line for script in scripts for line in commands(script) if line.startswith("plan ")]
    return {word.partition("=")[0] for line in plans for word in line.split()}


def page() -> str:
    return (ROOT / "docs" / "rollouts.md").read_text()


def scripts() -> list[str]:
    return [path.read_text() for path in (ROOT / "tests" / "scripts").glob("*.txt")]


def without_heading() -> set[str]:
    return set(fields.knob_fields()) - headings(page())


def without_session() -> set[str]:
    said = shown(scripts())
    return {knob.name for knob in KNOBS if knob.name not in EVERY_PLAN and knob.option not in said}


def test_every_knob_has_a_heading() -> None:
    assert without_heading() == set()


def test_every_heading_is_a_knob() -> None:
    assert headings(page()) - set(fields.knob_fields()) == set()


def test_every_knob_has_a_session_that_shows_it() -> None:
    assert without_session() == set()


def test_every_knob_names_its_option_under_its_heading() -> None:
    sections = dict(re.findall(r"^### (\S+)\n(.*?)(?=^#|\Z)", page(), re.MULTILINE | re.DOTALL))
    missing = [knob.name for knob in KNOBS if knob.option not in sections.get(knob.name, "")]
    assert missing == []


def test_a_planted_knob_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = msgspec.defstruct("Planted", [("moon_phase", str, "full")])
    wider = msgspec.defstruct("Wider", [("planted", planted)], bases=(RolloutSpec,), kw_only=True)
    known = fields.knob_fields
    monkeypatch.setattr(fields, "knob_fields", lambda *part: known(*(part or [wider])))
    assert without_heading() == {"planted.moon_phase"}
    with pytest.raises(AssertionError):
        test_every_knob_has_a_heading()


def test_a_session_that_loses_an_option_is_found() -> None:
    all_of_them = shown(scripts())
    fewer = shown([script.replace("--soak", "--soaked") for script in scripts()])
    assert "--soak" in all_of_them - fewer
