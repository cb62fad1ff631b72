"""The output of each verb: one object for programs, lines for people, and the exit code."""

import json
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import CATALOG, OperatorError, Party, error_from_code
from edgefleet.cli.exits import Exit, exit_of
from edgefleet.examples import FOLDER
from edgefleet.protocol.device import IsolationReason, isolation_text
from edgefleet.protocol.operator import Claims, DevicePage, Rollouts, TrustedKeys
from edgefleet.protocol.rollout import Status
from support.canned_hub import CannedHub
from support.command_line import CommandLine
from support.fake_reads import FakeReads, rollout_in
from support.scenes import two_models

READS = (
    ("fleet", "show"),
    ("device", "list"),
    ("device", "show", "lyon-0000"),
    ("device", "why", "lyon-0000"),
    ("model", "list"),
    ("model", "show", "digits"),
    ("model", "show", "digits", "2"),
    ("model", "why", "digits", "2"),
    ("rollout", "list"),
    ("rollout", "show"),
    ("rollout", "show", "ro-running"),
    ("rollout", "why"),
    ("audit",),
)
PLAN = ("rollout", "plan", "--model", "digits", "--release", "2")
VERBS = ("start", "pause", "resume", "advance", "halt", "revert")


@pytest.mark.parametrize("args", READS, ids=" ".join)
def test_a_read_answers_with_lines_or_with_one_object(
    args: tuple[str, ...], fleet: CommandLine
) -> None:
    for_people = fleet(*args)
    assert (for_people.exit, for_people.err) == (0, "")
    assert len(for_people.out.splitlines()) >= 1
    for_programs = fleet(*args, "--json")
    assert (for_programs.exit, for_programs.err) == (0, "")
    assert len(for_programs.out.splitlines()) == 1
    assert isinstance(for_programs.json, dict)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_goes_to_the_only_open_rollout_with_its_note(
    verb: str, fleet: CommandLine, canned: CannedHub
) -> None:
    canned.put("POST", f"/api/v1/rollouts/ro-running/{verb}", rollout_in(Status.RUNNING))
    said = fleet("rollout", verb, "--note", "agreed", "--generation", "7", "--json")
    assert said.exit == 0
    assert said.json["id"] == "ro-running"
    assert canned.asked[-1].path == f"/api/v1/rollouts/ro-running/{verb}"
    assert json.loads(canned.asked[-1].body) == {"generation": 7, "note": "agreed"}


def test_a_verb_guesses_no_rollout(fleet: CommandLine, canned: CannedHub) -> None:
    two = [rollout_in(Status.RUNNING), rollout_in(Status.HALTED)]
    canned.put("GET", "/api/v1/rollouts", {"rollouts": two})
    assert fleet("rollout", "halt", "--json").json["code"] == "bad_request"
    canned.put("GET", "/api/v1/rollouts", {"rollouts": [rollout_in(Status.COMPLETED)]})
    assert fleet("rollout", "revert", "--json").json["code"] == "not_found"
    assert [asked for asked in canned.asked if asked.method == "POST"] == []


def test_to_look_at_the_newest_will_do(fleet: CommandLine, canned: CannedHub) -> None:
    canned.put("GET", "/api/v1/rollouts", {"rollouts": [rollout_in(Status.REVERTED)]})
    canned.put("GET", "/api/v1/rollouts/ro-reverted", rollout_in(Status.REVERTED))
    assert fleet("rollout", "show", "--json").json["id"] == "ro-reverted"


def test_a_plan_can_start_at_the_generation_it_was_planned_at(
    fleet: CommandLine, canned: CannedHub
) -> None:
    planned = rollout_in(Status.PLANNED)
    canned.put("POST", f"/api/v1/rollouts/{planned.id}/start", rollout_in(Status.RUNNING))
    said = fleet(*PLAN, "--start", "--json")
    assert said.json["status"] == "running"
    assert json.loads(canned.asked[-1].body)["generation"] == planned.generation
    canned.asked.clear()
    assert "rollout start ro-planned" in fleet(*PLAN).err
    assert [asked.path for asked in canned.asked] == ["/api/v1/rollouts"]


def test_claims_stand_alone_on_standard_output(fleet: CommandLine, canned: CannedHub) -> None:
    canned.put("POST", "/api/v1/claims", Claims(claims=("efc_1", "efc_2"), expires_at=1.0))
    said = fleet("device", "claim", "--count", "2", "--valid", "1h", "--label", "site=lyon")
    assert said.out.split() == ["efc_1", "efc_2"]
    assert "edgefleet agent run" in said.err
    sent = json.loads(canned.asked[-1].body)
    assert sent == {"count": 2, "valid_s": 3600, "labels": {"site": "lyon"}}


def test_a_page_says_how_to_go_on(fleet: CommandLine, canned: CannedHub) -> None:
    page = FakeReads().devices(None, 2)
    canned.put("GET", "/api/v1/devices", page)
    said = fleet("device", "list", "--limit", "2", "--selector", "site=lyon")
    assert f"--after {page.next}" in said.out
    assert canned.asked[-1].query == "limit=2&selector=site%3Dlyon"


def test_devices_and_rollouts_are_filtered_by_the_hub(
    fleet: CommandLine, canned: CannedHub
) -> None:
    assert fleet("device", "list", "--runs", "detector:3").exit == 0
    assert canned.asked[-1].query == "limit=100&runs=detector%3A3"
    assert fleet("rollout", "list", "--model", "detector").exit == 0
    assert canned.asked[-1].query == "model=detector"


def test_each_model_of_a_device_has_a_row(fleet: CommandLine, canned: CannedHub) -> None:
    shown = fleet("device", "show", "lyon-0900").out.splitlines()
    head = next(line for line in shown if line.startswith("MODEL"))
    rows = shown[shown.index(head) + 1 :]
    cells = [[cell for cell in re.split("  +", row) if cell] for row in rows]
    assert [row[:6] for row in cells] == [
        ["detector", "-", "staged", "2", "ro-detector", "-"],
        ["digits", "3", "trial", "3", "ro-running", "512 MiB"],
    ]
    assert [row[6] for row in cells] == [one.line for one in two_models().models]
    canned.put("GET", "/api/v1/devices", DevicePage(devices=(two_models(),)))
    assert "detector staged, digits trial" in fleet("device", "list").out


def test_a_device_whose_releases_the_hub_does_not_know_is_shown(
    fleet: CommandLine, canned: CannedHub
) -> None:
    view = replace(two_models(), unknown_set=True)
    canned.put("GET", "/api/v1/devices", DevicePage(devices=(view,)))
    canned.put("GET", "/api/v1/devices/x", view)
    canned.put("GET", "/api/v1/fleet", replace(FakeReads().fleet(), unknown_sets=3))
    assert "unknown" in fleet("device", "list").out
    assert "table of release sets is full" in fleet("device", "show", "x").out
    assert re.search("unknown set +3", fleet("fleet", "show").out)


def test_the_fleet_counts_disks_that_cannot_be_written(
    fleet: CommandLine, canned: CannedHub
) -> None:
    faults = {"disk_full": 1, "disk_readonly": 2}
    canned.put("GET", "/api/v1/fleet", replace(FakeReads().fleet(), disk_faults=faults))
    assert re.search("disk faults +3: disk_full 1, disk_readonly 2;", fleet("fleet", "show").out)


def test_a_model_with_a_process_of_its_own_is_shown_with_the_reason(
    fleet: CommandLine, canned: CannedHub
) -> None:
    text = isolation_text(IsolationReason.RAN_IN_CRASH)
    view = two_models()
    digits = replace(view.models[1], isolation="ran_in_crash", isolation_text=text)
    canned.put("GET", "/api/v1/devices/x", replace(view, models=(view.models[0], digits)))
    lines = fleet("device", "show", "x").out.splitlines()
    assert [line for line in lines if line.startswith("own process")] == [
        f"own process  digits: {text}"
    ]
    shown = fleet("device", "show", "x", "--json").json["models"][1]
    assert (shown["isolation"], shown["isolation_text"]) == ("ran_in_crash", text)


def test_a_device_cannot_write_on_the_operators_terminal(
    fleet: CommandLine, canned: CannedHub
) -> None:
    bad = replace(
        FakeReads().device_views[0], labels={"site": "\x1b[2J\x9b31m"}, line="\x07\u202egnp.exe"
    )
    canned.put("GET", "/api/v1/devices", DevicePage(devices=(bad,)))
    canned.put("GET", "/api/v1/devices/x", bad)
    shown = fleet("device", "list").out + fleet("device", "show", "x").out
    assert "site=?[2J" in shown
    assert not set(shown) & {"\x1b", "\x9b", "\x07", "\u202e"}


# Exit codes.


@pytest.mark.parametrize("code", [code for code, kind in CATALOG.items() if kind.status != 500])
def test_what_the_hub_refuses_ends_with_its_problem(
    code: str, fleet: CommandLine, canned: CannedHub
) -> None:
    error = error_from_code(code, "Said by the hub.", field="some.field")
    canned.put("POST", "/api/v1/rollouts", error)
    said = fleet(*PLAN, "--json")
    assert said.exit == exit_of(error)
    assert said.json["code"] == code
    assert (said.json["message"], said.json["field"]) == ("Said by the hub.", "some.field")
    assert said.json["hint"]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ((), Exit.USAGE),
        (("rollout",), Exit.USAGE),
        (("rolout",), Exit.USAGE),
        (("rollout", "plan"), Exit.USAGE),
        (("rollout", "list", "--nope"), Exit.USAGE),
        (("rollout", "list", "--hub", "ftp://x"), Exit.USAGE),
        (("rollout", "list", "extra"), Exit.USAGE),
        (("device", "claim", "--count", "0"), Exit.USAGE),
        (("device", "claim", "--label", "site"), Exit.USAGE),
        (("device", "label", "cam-1", "site=a", "site=b"), Exit.USAGE),
        (("device", "label", "cam-1", "site=a", "site-"), Exit.USAGE),
        (("device", "label", "cam-1", "site-", "sitex"), Exit.USAGE),
        (("device", "label", "cam-1", "-"), Exit.USAGE),
        (("model", "publish", "no-such-folder"), Exit.USAGE),
        (("rollout", "list"), Exit.NETWORK),
        (("rollout", "list", "--hub", "http://127.0.0.1:1", "--token", "t"), Exit.NETWORK),
        (("rollout", "list", "--hub", "http://hub.invalid", "--token", "t"), Exit.NETWORK),
        (("rollout", "list", "--hub", "http://elsewhere.invalid"), Exit.REFUSED),
    ],
    ids=str,
)
def test_bad_usage_and_no_hub(args: tuple[str, ...], code: Exit, edgefleet: CommandLine) -> None:
    said = edgefleet(*args)
    assert said.exit == code
    assert said.out == ""
    assert "edgefleet" in said.err
    if args and args[-1] != "rollout":
        assert f"(exit {int(code)})" in said.err
        assert "  next:  edgefleet " in said.err
    as_json = edgefleet(*args, "--json")
    if args:
        assert as_json.exit == code
        assert as_json.json["code"] in CATALOG


def test_an_error_says_what_the_field_the_hint_and_the_next_command(
    fleet: CommandLine, canned: CannedHub
) -> None:
    canned.put(
        "POST",
        "/api/v1/rollouts",
        OperatorError("rollout_overlap", "ro-1 moves 12 of these devices.", field="selector"),
    )
    said = fleet(*PLAN)
    assert said.err.splitlines() == [
        "edgefleet: ro-1 moves 12 of these devices.",
        "  field: selector",
        f"  hint:  {CATALOG['rollout_overlap'].hint}",
        "  next:  edgefleet rollout list",
        "  code:  rollout_overlap (exit 3)",
    ]


@pytest.mark.parametrize(
    ("args", "near"), [(("rolout",), "rollout"), (("rollout", "puase"), "pause")], ids=str
)
def test_a_mistyped_verb_is_guessed(
    args: tuple[str, ...], near: str, edgefleet: CommandLine
) -> None:
    assert f"Did you mean {near}?" in edgefleet(*args).err


def test_a_defect_of_ours_ends_with_70_and_its_trace(
    fleet: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("edgefleet.client.hub.HubClient.models", broken)
    said = fleet("model", "list", "--json")
    assert said.exit == Exit.OURS
    assert said.json["code"] == "internal"
    assert "planted" in said.json["message"]
    assert "Traceback" in said.err


def test_ctrl_c_ends_with_130(fleet: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgefleet.client.hub.HubClient.models", interrupted)
    assert fleet("model", "list").exit == Exit.INTERRUPTED


def test_each_error_has_one_exit_code() -> None:
    for code, kind in CATALOG.items():
        ending = exit_of(error_from_code(code, "x"))
        assert ending in set(Exit) - {Exit.DONE, Exit.WAITING, Exit.INTERRUPTED}
        assert (ending is Exit.NETWORK) == (kind.party is Party.NETWORK)
    expected = {
        "timeout": Exit.NETWORK,
        "golden_failed": Exit.FAILED,
        "not_found": Exit.REFUSED,
        "setting_invalid": Exit.USAGE,
        "internal": Exit.OURS,
    }
    assert {code: exit_of(error_from_code(code, "x")) for code in expected} == expected


def test_what_the_hub_has_not_ends_alike_whether_it_or_the_command_line_says_so(
    fleet: CommandLine, canned: CannedHub
) -> None:
    none = OperatorError("not_found", "There is no rollout 'ro-none'.", field="rollout")
    canned.put("GET", "/api/v1/rollouts/ro-none", none)
    canned.put("GET", "/api/v1/rollouts", Rollouts(rollouts=()))
    assert fleet("rollout", "show", "ro-none").exit == Exit.REFUSED
    assert fleet("rollout", "show").exit == Exit.REFUSED


@pytest.mark.parametrize("code", CATALOG)
def test_a_hint_is_a_next_step_and_does_not_repeat_the_error(code: str) -> None:
    first = CATALOG[code].hint.split()[0].lower()
    assert first in STEPS, f"{code}: {CATALOG[code].hint}"


STEPS = frozenset(
    [
        "ask",
        "check",
        "change",
        "choose",
        "continue",
        "enrol",
        "export",
        "fix",
        "free",
        "give",
        "install",
        "keep",
        "list",
        "make",
        "plan",
        "publish",
        "reload",
        "replace",
        "report",
        "restore",
        "retry",
        "run",
        "see",
        "send",
        "set",
        "sign",
        "start",
        "stop",
        "try",
        "update",
        "upload",
        "use",
        "wait",
        "widen",
        "build",
        "skip",
    ]
)
"""The verbs with which a hint begins. A noun would describe the error once more."""


def test_a_claim_is_printed_once_and_only_as_the_answer(
    fleet: CommandLine, canned: CannedHub
) -> None:
    canned.put("POST", "/api/v1/claims", Claims(claims=("efc_secret",), expires_at=5.0))
    said = fleet("device", "claim")
    assert said.out == "efc_secret\n"
    assert "efc_secret" not in said.err
    assert "--claim-file FILE" in said.err
    assert "put the claim into a file" in said.err
    assert "put one of the claims into a file" in fleet("device", "claim", "--count", "2").err


# The key.


def test_a_key_is_private_and_never_written_over(edgefleet: CommandLine) -> None:
    made = edgefleet("key", "new", "--json").json
    file = Path(made["key"])
    assert file == edgefleet.home / ".config" / "edgefleet" / "publisher.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert Path(made["public_file"]).read_text() == f"{made['public_key']}\n"
    before = file.read_bytes()
    again = edgefleet("key", "new", "--json")
    assert again.exit == Exit.USAGE
    assert "edgefleet key show" in again.json["hint"]
    assert file.read_bytes() == before
    assert edgefleet("key", "show", "--json").json == made
    assert edgefleet("key", "show", "--public").out == f"{made['public_key']}\n"
    assert file.read_text().strip() not in edgefleet("key", "show").out


def test_without_a_key_publish_says_how_to_make_one(fleet: CommandLine, tmp_path: Path) -> None:
    said = fleet("model", "publish", str(tmp_path), "--json")
    assert said.exit == Exit.USAGE
    assert "edgefleet key new" in said.json["hint"]


def test_a_key_that_the_hub_does_not_know_is_told_before_anything_is_sent(
    fleet: CommandLine, canned: CannedHub
) -> None:
    release = FOLDER / "digits" / "release-1"
    canned.put("GET", "/api/v1/trust", TrustedKeys(keys=()))
    assert fleet("key", "new").exit == 0
    said = fleet("model", "publish", str(release), "--skip-proof", "--json")
    assert said.exit == Exit.USAGE
    assert said.json["code"] == "signature_invalid"
    assert "--trust" in said.json["hint"]
    assert {asked.method for asked in canned.asked} == {"GET"}
