"""Precedence of settings: command line, environment, file."""

from pathlib import Path

import pytest

from edgefleet.agent import settings
from edgefleet.agent.settings import (
    CREDENTIAL,
    OPTIONS,
    AgentSettings,
    Call,
    as_toml,
    parse,
    parse_call,
    serving_fallback,
)
from edgefleet.base.errors import OperatorError
from edgefleet.serving.bounds import Bounds

GIVEN = (
    "run",
    "--hub",
    "http://hub:1",
    "--name",
    "cam-1",
    "--profile",
    "coral_tpu",
    "--trust",
    "t",
)


def test_the_command_line_alone_is_enough() -> None:
    assert parse(GIVEN, {}) == AgentSettings(
        hub="http://hub:1",
        name="cam-1",
        profile="coral_tpu",
        trust=Path("t"),
        data_dir=Path("edgefleet-agent"),
        serve="127.0.0.1:8600",
    )


def test_every_option_can_come_from_the_environment(tmp_path: Path) -> None:
    environ = {
        "EDGEFLEET_AGENT_HUB": "http://hub:2",
        "EDGEFLEET_AGENT_NAME": "cam-2",
        "EDGEFLEET_AGENT_PROFILE": "generic_x86",
        "EDGEFLEET_AGENT_TRUST": "trust",
        "EDGEFLEET_AGENT_CLAIM": "claim",
        "EDGEFLEET_AGENT_CLAIM_FILE": "absent",
        "EDGEFLEET_AGENT_DATA_DIR": str(tmp_path),
        "EDGEFLEET_AGENT_SERVE": "0.0.0.0:80",
        "EDGEFLEET_AGENT_SERVE_GRPC": "0.0.0.0:81",
        "EDGEFLEET_AGENT_CORS_ORIGIN": "https://a.example, http://b.example:8080",
        "EDGEFLEET_AGENT_FALLBACK": "https://infer.example",
        "EDGEFLEET_AGENT_FALLBACK_WHEN": "hedge=p99",
        "EDGEFLEET_AGENT_FALLBACK_BUDGET": "share=5%",
        "EDGEFLEET_AGENT_FALLBACK_TIMEOUT_S": "2",
        "EDGEFLEET_AGENT_FALLBACK_CA_FILE": "ca.pem",
        "EDGEFLEET_AGENT_FALLBACK_TOKEN_FILE": "token",
        "EDGEFLEET_AGENT_BYTES_PER_S": "1000",
        "EDGEFLEET_AGENT_MODELS_MEMORY_MIB": "512",
        "EDGEFLEET_AGENT_SERVE_THREADS": "2",
        "EDGEFLEET_AGENT_SERVE_BODY_MIB": "48",
        "EDGEFLEET_AGENT_SERVE_BODIES_MIB": "96",
        "EDGEFLEET_AGENT_SERVE_CONNECTIONS": "100",
        "EDGEFLEET_AGENT_SERVE_PEER_CONNECTIONS": "50",
        "EDGEFLEET_AGENT_SERVE_RESERVED_CONNECTIONS": "4",
        "EDGEFLEET_AGENT_SERVE_QUEUE": "16, wake=2, digits=8",
        "EDGEFLEET_AGENT_SERVE_CLIENT_RATE": "20",
        "EDGEFLEET_AGENT_SERVE_CLIENT_BURST": "5",
        "EDGEFLEET_AGENT_SERVE_HEAD_S": "5",
        "EDGEFLEET_AGENT_SERVE_BODY_S": "60",
        "EDGEFLEET_AGENT_SERVE_WRITE_S": "20",
        "EDGEFLEET_AGENT_SERVE_IDLE_S": "30",
        "EDGEFLEET_AGENT_SYSFS": "/sensors",
        "EDGEFLEET_AGENT_KEEP_SERVING": "yes",
        "EDGEFLEET_AGENT_JSON_LOG": "1",
        "EDGEFLEET_AGENT_LABELS": "site=lyon, tier=gold",
    }
    assert parse(["run"], environ) == AgentSettings(
        hub="http://hub:2",
        name="cam-2",
        profile="generic_x86",
        trust=Path("trust"),
        claim="claim",
        data_dir=tmp_path,
        serve="0.0.0.0:80",
        serve_grpc="0.0.0.0:81",
        cors_origin="https://a.example,http://b.example:8080",
        fallback="https://infer.example",
        fallback_when="hedge=p99",
        fallback_budget="share=5%",
        fallback_timeout_s="2",
        fallback_ca_file="ca.pem",
        fallback_token_file="token",
        bytes_per_s=1000,
        models_memory_mib=512,
        serve_threads=2,
        serve_bounds=Bounds(
            body_mib=48,
            bodies_mib=96,
            connections=100,
            peer_connections=50,
            reserved_connections=4,
            queue=16,
            client_rate=20,
            client_burst=5,
            head_s=5,
            body_s=60,
            write_s=20,
            idle_s=30,
            queues=(("digits", 8), ("wake", 2)),
        ),
        sysfs=Path("/sensors"),
        keep_serving=True,
        json_log=True,
        labels=(("site", "lyon"), ("tier", "gold")),
    )
    named = {f"EDGEFLEET_AGENT_{one.name.upper().replace('-', '_')}" for one in OPTIONS}
    assert named == set(environ) - {"EDGEFLEET_AGENT_LABELS"}


def test_the_command_line_wins_over_the_environment_and_this_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(
        '[agent]\nhub = "http://file:1"\nname = "file"\nprofile = "file"\ntrust = "t"\n'
        'keep-serving = true\nlabels = { site = "file" }\n'
    )
    settings = parse(
        ["run", "--config", str(file), "--name", "line", "--label", "site=line"],
        {"EDGEFLEET_AGENT_NAME": "environ", "EDGEFLEET_AGENT_PROFILE": "environ"},
    )
    assert (settings.hub, settings.profile, settings.name) == ("http://file:1", "environ", "line")
    assert (settings.labels, settings.keep_serving) == ((("site", "line"),), True)


@pytest.mark.parametrize(
    ("more", "field", "code"),
    [
        (("--serve", "8600"), "serve", "setting_invalid"),
        (("--serve", "host:99999"), "serve", "setting_invalid"),
        (("--serve-grpc", "8601"), "serve_grpc", "setting_invalid"),
        (("--cors-origin", "page.example"), "cors_origin", "setting_invalid"),
        (("--cors-origin", "https://page.example/path"), "cors_origin", "setting_invalid"),
        (("--fallback", "infer.example"), "fallback", "setting_invalid"),
        (("--fallback-when", "always"), "fallback_when", "setting_invalid"),
        (("--fallback-budget", "share=0.1"), "fallback_budget", "setting_invalid"),
        (("--bytes-per-s", "-1"), "bytes_per_s", "setting_invalid"),
        (("--serve-body-mib", "0"), "serve_body_mib", "setting_invalid"),
        (("--serve-body-mib", "65"), "serve_bodies_mib", "setting_invalid"),
        (("--serve-queue", "32,digits"), "serve_queue", "setting_invalid"),
        (("--label", "site"), "label", "setting_invalid"),
        (("--label", f"site={'x' * 64}"), "label", "setting_invalid"),
        (("--name", "../etc"), "name", "name_invalid"),
        (("--config", "/there/is/none.toml"), "config", "setting_invalid"),
    ],
)
def test_a_wrong_setting_is_named(more: tuple[str, ...], field: str, code: str) -> None:
    with pytest.raises(OperatorError) as wrong:
        parse([*GIVEN, *more], {})
    assert (wrong.value.field, wrong.value.code) == (field, code)


def test_a_missing_setting_is_named_with_all_three_places_to_give_it() -> None:
    with pytest.raises(OperatorError) as missing:
        parse(["run"], {})
    assert missing.value.field == "hub"
    assert "--hub, EDGEFLEET_AGENT_HUB or hub in the file" in missing.value.hint


def test_an_unknown_key_in_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('hubb = "http://file:1"\n')
    with pytest.raises(OperatorError, match="Unknown option 'hubb'"):
        parse([*GIVEN, "--config", str(file)], {})


def test_a_flag_that_is_neither_yes_nor_no_is_refused() -> None:
    with pytest.raises(OperatorError, match="not true or false"):
        parse(GIVEN, {"EDGEFLEET_AGENT_JSON_LOG": "perhaps"})


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["run", "--help"], {})
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert all(f"--{option.name}" in said for option in OPTIONS)


def test_the_claim_comes_from_a_file_or_from_systemd_and_may_be_gone_later(tmp_path: Path) -> None:
    (tmp_path / "claim").write_text("efc_file\n")
    (tmp_path / CREDENTIAL).write_text("efc_credential\n")
    by_file = (*GIVEN, "--claim-file", str(tmp_path / "claim"))
    systemd = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert parse(by_file, {}).claim == "efc_file"
    assert parse(GIVEN, systemd).claim == "efc_credential"
    assert parse(by_file, systemd).claim == "efc_file"
    assert parse((*by_file, "--claim", "efc_given"), systemd).claim == "efc_given"
    (tmp_path / "claim").unlink()
    assert parse(by_file, {}).claim == ""


@pytest.mark.parametrize(
    ("content", "claim", "fault"),
    [
        (b"efc_1\r\n", "efc_1", ""),
        (b"\xef\xbb\xbfefc_1\n\n", "efc_1", ""),
        (b"efc_1\nefc_2\n", "", "has 2 words"),
        ("efc_1".encode("utf-16"), "", "cannot be read"),
        (None, "", "cannot be read"),
    ],
    ids=["CRLF", "BOM", "two claims", "UTF-16", "folder"],
)
def test_a_claim_file_that_cannot_be_used_is_a_fault_and_no_error(
    tmp_path: Path, content: bytes | None, claim: str, fault: str
) -> None:
    file = tmp_path / "claim"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    found = parse((*GIVEN, "--claim-file", str(file)), {})
    assert found.claim == claim
    assert fault in str(found.claim_fault or "")
    assert bool(fault) == (found.claim_fault is not None)


@pytest.mark.parametrize("value", ["\N{GRINNING FACE}", "a\x7fb", 'q"\\', "a\tb\nc", "\u00e9"])
def test_any_label_survives_the_file(tmp_path: Path, value: str) -> None:
    given = parse((*GIVEN, "--label", f"site={value}"), {})
    file = tmp_path / "agent.toml"
    file.write_text(as_toml(given), encoding="utf-8-sig")
    assert parse(["run", "--config", str(file)], {}) == given


@pytest.mark.parametrize(
    ("text", "field"),
    [("agent = 5", "agent"), ('hub = ["a"]', "hub"), ("[labels]\na = {b = 1}", "labels")],
)
def test_a_value_of_another_kind_in_the_file_is_named(
    tmp_path: Path, text: str, field: str
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(text)
    given = [one for one in GIVEN if one not in ("--hub", "http://hub:1")]
    environ = {} if field == "hub" else {"EDGEFLEET_AGENT_HUB": "http://hub:1"}
    with pytest.raises(OperatorError) as caught:
        parse((*given, "--config", str(file)), environ)
    assert caught.value.field == field


def test_a_label_that_is_no_text_can_be_sent() -> None:
    ((_, value),) = parse((*GIVEN, "--label", "site=\udcff"), {}).labels
    assert value.encode() == b"?"


def test_a_file_made_of_options_means_the_same_and_has_no_claim(tmp_path: Path) -> None:
    given = (*GIVEN, "--label", "site=lyon", "--bytes-per-s", "9", "--json-log", "--cors-origin=*")
    file = tmp_path / "agent.toml"
    file.write_text(as_toml(parse((*given, "--claim", "efc_secret"), {})))
    assert "efc_secret" not in file.read_text()
    assert parse(["run", "--config", str(file)], {}) == parse(given, {})


def test_the_serving_process_gets_the_fallback_only_if_there_is_one() -> None:
    assert serving_fallback(parse((*GIVEN, "--fallback-when", "missing"), {})) == []
    given = (*GIVEN, "--fallback=https://h", "--fallback-when=missing", "--fallback-token-file=t")
    options = serving_fallback(parse(given, {}))
    assert options[:2] == ["--fallback=https://h", "--fallback-when=missing"]
    assert "--fallback-token-file=t" in options


def test_the_usual_file_is_read_if_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "agent.toml"
    monkeypatch.setattr(settings, "CONFIG", file)
    with pytest.raises(OperatorError):
        parse(["run"], {})
    file.write_text(as_toml(parse(GIVEN, {})))
    assert parse(["run"], {}) == parse(GIVEN, {})
    assert parse_call(["health"], {}) == Call("health", Path("edgefleet-agent"))
    assert parse_call(["status", "--json", "--data-dir", "d"], {}).data_dir == Path("d")
