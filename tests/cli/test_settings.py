"""The source of a value: command line, variable, TOML file, default, in this order."""

import json
from pathlib import Path

import click
import pytest

from edgefleet.cli.config_file import load
from edgefleet.cli.group import root
from edgefleet.cli.tree import ROOT
from support.canned_hub import TOKEN, CannedHub
from support.command_line import CommandLine

PLAN = ("rollout", "plan", "--model", "digits", "--release", "2")


def soak_s(canned: CannedHub) -> float:
    """The soak time of the last sent plan, in seconds."""
    sent = json.loads(canned.asked[-1].body)
    value = sent["gate"]["soak_s"]
    assert isinstance(value, (int, float))
    return value


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "edgefleet.toml"
    file.write_text(text)
    return file


def test_flag_over_variable_over_file_over_default(fleet: CommandLine, canned: CannedHub) -> None:
    variable = {"EDGEFLEET_ROLLOUT_PLAN_SOAK": "3m"}
    assert fleet(*PLAN).exit == 0
    assert soak_s(canned) == 60
    write(Path.cwd(), '[rollout.plan]\nsoak = "2m"\n')
    assert fleet(*PLAN).exit == 0
    assert soak_s(canned) == 120
    assert fleet(*PLAN, **variable).exit == 0
    assert soak_s(canned) == 180
    assert fleet(*PLAN, "--soak", "4m", **variable).exit == 0
    assert soak_s(canned) == 240


def test_the_first_file_of_the_four_places_is_read_alone(
    fleet: CommandLine, canned: CannedHub, tmp_path: Path
) -> None:
    home = fleet.home / ".config" / "edgefleet"
    home.mkdir(parents=True)
    (home / "config.toml").write_text("[rollout.plan]\nsoak = 1\nmin-sample = 9\n")
    assert fleet(*PLAN).exit == 0
    assert soak_s(canned) == 1
    write(Path.cwd(), "[rollout.plan]\nsoak = 2\n")
    assert fleet(*PLAN).exit == 0
    assert soak_s(canned) == 2
    assert json.loads(canned.asked[-1].body)["gate"]["min_sample"] == 5
    named = write(tmp_path / "a", "[rollout.plan]\nsoak = 3\n")
    assert fleet(*PLAN, EDGEFLEET_CONFIG=str(named)).exit == 0
    assert soak_s(canned) == 3
    said = write(tmp_path / "b", "[rollout.plan]\nsoak = 4\n")
    assert fleet(*PLAN, "--config", str(said), EDGEFLEET_CONFIG=str(named)).exit == 0
    assert soak_s(canned) == 4


def test_a_file_may_name_the_hub_for_every_verb(edgefleet: CommandLine, canned: CannedHub) -> None:
    write(Path.cwd(), f'hub = "{canned.url}"\ntoken = "{TOKEN}"\njson = true\n')
    assert edgefleet("rollout", "list").json["rollouts"]
    assert canned.asked[-1].headers["authorization"] == f"Bearer {TOKEN}"
    elsewhere = edgefleet("rollout", "list", EDGEFLEET_HUB="http://127.0.0.1:1")
    assert elsewhere.exit == 5


def test_a_shared_setting_is_not_for_another_option_of_the_same_name(tmp_path: Path) -> None:
    write(Path.cwd(), f'data_dir = "{tmp_path / "hub"}"\n')
    outer = click.Context(root, info_name="edgefleet")
    found = {}
    for name in ("serve", "demo"):  # the demo has its own folder
        command = load(ROOT[name])
        with command.make_context(name, [], parent=outer) as made:
            found[name] = (made.default_map or {}).get("data_dir")
    assert found == {"serve": str(tmp_path / "hub"), "demo": None}


def test_a_list_and_dashes_serve_in_a_file(fleet: CommandLine, canned: CannedHub) -> None:
    write(Path.cwd(), '[rollout.plan]\nwaves = [2, 50.5]\nmax-error-rate = "3%"\n')
    assert fleet(*PLAN).exit == 0
    sent = json.loads(canned.asked[-1].body)
    assert [wave["percent"] for wave in sent["waves"]] == [2, 50.5]
    assert sent["gate"]["max_error_rate"] == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("soak = 3", "soak"),
        ("[rollout]\nsoak = 3", "rollout.soak"),
        ("[rollout.plan]\nsoka = 3", "rollout.plan.soka"),
        ("[rolout.plan]\nsoak = 3", "rolout"),
        ("[rollout.plann]\nsoak = 3", "rollout.plann"),
        ("[doctor]\nsoak = 3", "doctor.soak"),
        ("rollout = 3", "rollout"),
    ],
)
def test_a_key_that_no_option_has_is_named(text: str, field: str, fleet: CommandLine) -> None:
    write(Path.cwd(), text)
    said = fleet("rollout", "list", "--json")
    assert said.exit == 2
    assert (said.json["code"], said.json["field"]) == ("setting_invalid", field)


def test_a_near_miss_is_suggested(fleet: CommandLine) -> None:
    write(Path.cwd(), "[rollout.plan]\nsoka = 3\n")
    assert "Did you mean soak?" in fleet("rollout", "list").err


def test_the_agents_table_is_the_agents_to_check(fleet: CommandLine) -> None:
    write(Path.cwd(), '[agent]\nname = "cam-1"\n')
    assert fleet("rollout", "list").exit == 0


@pytest.mark.parametrize("data", [b"soak = ", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_told(data: bytes, fleet: CommandLine) -> None:
    (Path.cwd() / "edgefleet.toml").write_bytes(data)
    said = fleet("rollout", "list", "--json")
    assert said.exit == 2
    assert said.json["field"] == "config"


def test_a_named_file_must_exist(fleet: CommandLine) -> None:
    said = fleet("rollout", "list", "--config", "none.toml", "--json")
    assert said.exit == 2
    assert said.json["field"] == "config"


def test_a_bad_value_says_where_it_came_from(fleet: CommandLine) -> None:
    said = fleet(*PLAN, EDGEFLEET_ROLLOUT_PLAN_SOAK="soon")
    assert said.exit == 2
    assert "--soak" in said.err
    assert "EDGEFLEET_ variable" in said.err
    write(Path.cwd(), '[rollout.plan]\nsoak = "soon"\n')
    assert "TOML file" in fleet(*PLAN).err


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("2h", 7200), ("1d", 86400), ("500ms", 0.5), ("7", 7), ("1.5m", 90)],
)
def test_durations(text: str, seconds: float, fleet: CommandLine, canned: CannedHub) -> None:
    assert fleet(*PLAN, "--soak", text).exit == 0
    assert soak_s(canned) == seconds


@pytest.mark.parametrize("text", ["", "-5s", "5 weeks", "nan", "inf", "1e9", "5mm", "٣s"])
def test_what_is_no_duration(text: str, fleet: CommandLine, canned: CannedHub) -> None:
    said = fleet(*PLAN, f"--soak={text}", "--json")
    assert said.exit == 2
    assert said.json["field"] == "--soak"
    assert canned.asked == []


@pytest.mark.parametrize("text", ["", "1,,3", "a", "nan", "inf,1"])
def test_what_are_no_waves(text: str, fleet: CommandLine, canned: CannedHub) -> None:
    said = fleet(*PLAN, f"--waves={text}", "--json")
    assert said.exit == 2
    assert said.json["field"] == "--waves"
    assert canned.asked == []
